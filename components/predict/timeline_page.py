"""What a model says of one video, as a page with pictures that loads nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from components.predict.scoring import Classes
from components.predict.thumbnails import data_uri, size_of
from components.predict.timeline import Segment, Timeline, clock, score_text
from trainer.feature_networks.feature_extractor import FeatureExtractor
from trainer.record_format import SEGMENT_FRAMES
from trainer.reporting.page import folded, page, section, table, tiles

SHOWN = 10
"""Labels of the whole video with bars; the others are folded away."""
ROWS = 8
"""Classes of the heat map."""
BEST = 3
"""Classes of a segment's card."""
_MOST_NUMBERS = 14
"""Segments up to which there is room for numbers in the heat map."""
_PICTURES = 12
"""Pictures above it, about."""
_GAP = Markup('<td class="none">·</td>')
_DEEPEST = 0.8  # of the colour: text is read on it in light and dark


def timeline_page(timeline: Timeline, frames: Sequence[NDArray[np.uint8]]) -> str:
    """A page of its own.

    Args:
        timeline: what the model says.
        frames: uint8 [299,299,3] of each second.
    """
    segments = timeline.segments
    if segments is None:
        starts = range(0, len(frames), SEGMENT_FRAMES)
        segments = [Segment(s, min(s + SEGMENT_FRAMES, len(frames)), []) for s in starts]
    size = size_of(timeline.facts["width"], timeline.facts["height"])
    pictures = [_picture(frames, one, size) for one in segments]
    parts = [_alarm(timeline)] if timeline.meaningless else []
    parts.append(_labels(timeline))
    if timeline.segments is None:
        parts.append(_no_timeline(timeline, pictures, segments))
    else:
        parts += [_heat_map(timeline, segments, pictures), _cards(segments, pictures)]
    parts += [_file(timeline), _making(timeline)]
    subtitle = f"What a model sees in this video: {timeline.model['folder']}"
    return page(timeline.name, subtitle, parts)


def _picture(
    frames: Sequence[NDArray[np.uint8]], segment: Segment, size: tuple[int, int]
) -> Markup:
    """The frame in the middle of a segment: at its start a cut may still be under way."""
    second = (segment.start + segment.end) // 2
    second = min(second, len(frames) - 1)
    return Markup('<img src="{}" width="{}" height="{}" alt="The video at {}">').format(
        data_uri(frames[second], size), *size, clock(second)
    )


def _alarm(timeline: Timeline) -> Markup:
    return Markup(
        '<section class="alarm" role="alert"><h2>These labels mean nothing</h2>'
        "<p>This page shows how a prediction goes, not what is in the video: {}.</p></section>"
    ).format(timeline.meaningless)


def _labels(timeline: Timeline) -> Markup:
    facts = timeline.facts
    best = timeline.labels[0]
    parts = [
        tiles(
            [
                (best["name"], f"best label, score {score_text(best['score'])}"),
                (clock(facts["duration"] or facts["frames"]), "long"),
                (f"{facts['width']} × {facts['height']}", "pixels"),
                (f"{facts['frames']:,}", "frames looked at, one a second"),
                ("sound" if facts["has_audio"] else "silent", facts["audio_codec"] or "no track"),
            ]
        ),
        _bars(timeline.labels[:SHOWN]),
    ]
    if rest := timeline.labels[SHOWN:]:
        parts.append(folded(f"{len(rest):,} more", _bars(rest)))
    parts += [Markup('<p class="aside">{}</p>').format(one) for one in timeline.notes]
    return section("The whole video", "Labels by score, from 0 to 1.", *parts)


def _bars(classes: Classes, has_verticals: bool = True) -> Markup:
    lines = []
    for one in classes:
        vertical = Markup(" <small>{}</small>").format(one["vertical"]) if has_verticals else ""
        line = '<li><span>{}{}</span><i><i style="width:{:.1f}%"></i></i><b>{}</b></li>'
        share = 100 * min(max(one["score"], 0), 1)
        lines.append(Markup(line).format(one["name"], vertical, share, score_text(one["score"])))
    return Markup('<ol class="bars">{}</ol>').format(Markup("").join(lines))


def _heat_map(timeline: Timeline, segments: list[Segment], pictures: list[Markup]) -> Markup:
    count = len(segments)
    has_numbers = count <= _MOST_NUMBERS
    step = 1 if has_numbers else -(-count // _PICTURES)
    strip, times = [], []
    for place in range(0, count, step):
        span = min(step, count - place)
        # At the end there may be no room for another.
        fits = 2 * span >= step
        middle = place + span // 2
        picture = pictures[middle] if fits else ""
        strip.append(Markup('<td colspan="{}">{}</td>').format(span, picture))
        time = clock(segments[place].start) if fits else ""
        times.append(Markup('<th scope="colgroup" colspan="{}">{}</th>').format(span, time))
    rows = [_heat_row(one, segments) for one in timeline.labels[:ROWS]]
    has_gaps = any(_GAP in row for row in rows)
    width = 170 + (46 * count if has_numbers else max(13 * count, 44 * len(strip)))
    drawing = Markup(
        '<div class="wide" role="region" aria-label="Timeline of the best labels" tabindex="0">'
        '<table class="heat{}" style="min-width:{}px"><thead><tr class="strip"><td></td>{}</tr>'
        '<tr><th scope="col">label</th>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(
        "" if has_numbers else " dense", width, Markup("").join(strip), Markup("").join(times),
        Markup("").join(rows),
    )  # fmt: skip
    depth = len(segments[0].classes)
    return section(
        "Timeline",
        f"The best labels of the whole video, in {_segments_in_words(segments)}: the deeper the "
        "colour, the higher the score."
        + (f" A dot: not among the {depth:,} best of that segment." if has_gaps else ""),
        drawing,
    )


def _heat_row(label: dict[str, object], segments: list[Segment]) -> Markup:
    cells = []
    for one in segments:
        score = next((c["score"] for c in one.classes if c["class"] == label["class"]), None)
        when = f"{clock(one.start)} – {clock(one.end)}"
        if score is None:
            cells.append(_GAP)
            continue
        # By the root: small scores are told from none.
        alpha = _DEEPEST * min(max(score, 0.0), 1.0) ** 0.5
        text = score_text(score)
        cells.append(
            Markup('<td style="background:rgba(56,120,219,{:.3f})" title="{}: {}">'
                   "<span>{}</span></td>").format(alpha, when, text, text)
        )  # fmt: skip
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(
        label["name"], Markup("").join(cells)
    )


def _cards(segments: list[Segment], pictures: list[Markup]) -> Markup:
    cards = [
        Markup("<figure>{}<figcaption><b>{} – {}</b>{}</figcaption></figure>").format(
            picture, clock(one.start), clock(one.end), _bars(one.classes[:BEST], False)
        )
        for one, picture in zip(segments, pictures, strict=True)
    ]
    return section(
        "Segments",
        f"{_segments_in_words(segments).capitalize()}, each alone: the frame in its middle and its "
        "best labels.",
        Markup('<div class="cards">{}</div>').format(Markup("").join(cards)),
    )


def _segments_in_words(segments: list[Segment]) -> str:
    if len(segments) == 1:
        return "one segment"
    step = segments[1].start - segments[0].start
    often = "" if step == SEGMENT_FRAMES else f", one beginning every {step}"
    return f"{len(segments):,} segments of {SEGMENT_FRAMES} seconds{often}"


def _no_timeline(timeline: Timeline, pictures: list[Markup], segments: list[Segment]) -> Markup:
    figures = [
        Markup("<figure>{}<figcaption><b>{} – {}</b></figcaption></figure>").format(
            picture, clock(one.start), clock(one.end)
        )
        for one, picture in zip(segments, pictures, strict=True)
    ]
    return section(
        "The video",
        "There is no timeline: this model takes video-level records, the means of all frames' "
        "features, so it can not say when something is seen. A frame-level model gives one."
        if timeline.model["level"] == "video"
        else "There is no timeline: this model was exported without one.",
        Markup('<div class="cards">{}</div>').format(Markup("").join(figures)),
    )


def _file(timeline: Timeline) -> Markup:
    facts = timeline.facts
    rate = f", {facts['frame_rate']:.4g} frames/s" if facts["frame_rate"] else ""
    sound = "none"
    if facts["audio_codec"]:
        sound = f"{facts['audio_codec']}, {facts['sound_seconds']:.1f} s used"
    duration = f"{facts['duration']:.1f} s" if facts["duration"] else "its header does not say"
    rows = [
        ("name", timeline.name),
        ("size", f"{facts['bytes']:,} bytes"),
        ("container", facts["container"]),
        ("duration", duration),
        ("picture", f"{facts['codec']}, {facts['width']} × {facts['height']}{rate}"),
        ("sound", sound),
        ("frames used", f"{facts['frames']:,}, one a second"),
    ]
    return section("The file", "What its header and its decoder say.", table(("", ""), rows))


def _making(timeline: Timeline) -> Markup:
    model, made = timeline.model, timeline.extractor
    trained = model["data_source"] or "not known"
    if model["features_mark"]:
        trained += f" (features of {model['features_mark']})"
    rows = [
        ("model", _code(model["folder"])),
        ("its digest", _code(model["digest"])),
        ("takes", f"{model['level']}-level records, {model['num_classes']:,} classes"),
        ("trained on", trained),
        ("features of frames", _network(made, "rgb")),
        ("features of sound", _network(made, "audio")),
        ("feature extractor", _code(made.digest)),
    ]
    return section("How it was made", "The model, and what made its features of this video.",
                   table(("", ""), rows))  # fmt: skip


def _network(made: FeatureExtractor, kind: str) -> Markup:
    network, projection = (
        (made.rgb_network, made.rgb) if kind == "rgb" else (made.audio_network, made.audio)
    )
    return Markup("{} {} · PCA {}").format(
        network.name, _code(network.weights[:12]), projection.source
    )


def _code(text: str) -> Markup:
    return Markup("<code>{}</code>").format(text)
