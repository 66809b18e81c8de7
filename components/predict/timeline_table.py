"""What a model says of one video, for a terminal of 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from components.predict.scoring import Classes
from components.predict.table import BEST, NAME, cut
from components.predict.timeline import Timeline, clock, score_text

SHOWN = 10
"""Labels of the whole video that are shown."""
_BAR = 30
_COLUMNS = 100
_WIDE = 40


def timeline_table(timeline: Timeline) -> str:
    """The labels of the whole video with bars, then a line for each segment."""
    return "\n".join(line.rstrip() for line in _lines(timeline))


def _lines(timeline: Timeline) -> Iterator[str]:
    if timeline.meaningless:
        why = cut(timeline.meaningless, 2 * _COLUMNS)
        yield from textwrap.wrap(f"THESE LABELS MEAN NOTHING: {why}", _COLUMNS)
        yield ""
    labels = timeline.labels[:SHOWN]
    width = max(len(cut(one["name"], _WIDE)) for one in labels)
    yield f"{'label':<{width}}  score"
    for one in labels:
        bar = "█" * round(_BAR * one["score"])
        yield f"{cut(one['name'], _WIDE):<{width}}  {score_text(one['score']):>5}  {bar}"
    if timeline.segments:
        times = [f"{clock(one.start)} – {clock(one.end)}" for one in timeline.segments]
        width = max(map(len, times))
        yield ""
        yield f"{'time':<{width}}  best labels"
        for time, segment in zip(times, timeline.segments, strict=True):
            yield f"{time:<{width}}  {_best(segment.classes)}"


def _best(classes: Classes) -> str:
    found = classes[:BEST]
    return ", ".join(f"{cut(one['name'], NAME)} {score_text(one['score'])}" for one in found)
