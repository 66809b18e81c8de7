"""Some answers as a table for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from components.predict.scoring import Predicted

BEST = 3
"""Classes of a video that are shown."""
_ID, NAME = 12, 20
_TAIL = 4


def table_of(answers: Sequence[Predicted]) -> str:
    """A line a video, of up to 100 columns: its id, and its best classes with their scores."""
    rows = [
        [cut(one.video_id, _ID)]
        + [
            text
            for found in one.classes[:BEST]
            for text in (cut(found["name"], NAME), f"{found['score']:.3f}")
        ]
        for one in answers
    ]
    best = max(((len(row) - 1) // 2 for row in rows), default=0)
    head = ["video", *(text for _ in range(best) for text in ("class", "score"))]
    rows = [head, *rows]
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return "\n".join(
        "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def cut(text: str, width: int) -> str:
    """A text in so many columns, without what a terminal would obey."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in text)
    # The end is often what tells two names apart.
    return shown if len(shown) <= width else f"{shown[: width - _TAIL - 1]}…{shown[-_TAIL:]}"
