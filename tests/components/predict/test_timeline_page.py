"""The page of a video: its pictures, its colours, its words, and a browser that looks at it."""

import base64
import functools
import io
import re

import numpy as np
import pytest
from PIL import Image

from components.predict.thumbnails import data_uri, size_of
from components.predict.timeline import Segment, Timeline, clock, score_text
from components.predict.timeline_page import timeline_page
from components.predict.timeline_table import timeline_table
from tests.browser import WIDTHS, look, needs_browser
from tests.components.extract_features.clips import number_of, picture
from tests.components.predict.own_video import fake_extractor

FACTS = {
    "bytes": 123_456, "container": "mov,mp4", "codec": "h264", "width": 1280, "height": 720,
    "duration": 60.0, "frame_rate": 29.97, "audio_codec": "aac", "frames": 60, "has_audio": True,
    "sound_seconds": 60.0, "broken": 0, "broken_audio_packets": 0,
}  # fmt: skip
MODEL = {
    "folder": "runs/1/serving_model", "digest": "d" * 32, "level": "frame", "num_classes": 9,
    "max_frames": 300, "data_source": "videos.csv", "data_fingerprint": "f", "features_mark": "",
}  # fmt: skip
EVIL = "<script>alert(1)</script> & Söhne"


def classes(count, shift=0):
    return [
        {"class": (i + shift) % 9, "name": f"label {(i + shift) % 9}", "vertical": EVIL,
         "score": 0.9 / (i + 1)}
        for i in range(count)
    ]  # fmt: skip


def timeline(seconds=60, facts=None, model=None, seed=None, **more):
    segments = [Segment(s, min(s + 5, seconds), classes(4, s // 5)) for s in range(0, seconds, 5)]
    fields = {
        "name": "clip.mp4", "labels": classes(9), "segments": segments,
        "facts": FACTS | {"frames": seconds} | (facts or {}),
        "extractor": fake_extractor(seed), "model": MODEL | (model or {}),
    }  # fmt: skip
    return Timeline(**fields | more)


@functools.cache
def frames(seconds=60):
    """Each shows its own second."""
    return [picture(second, 96, 96) for second in range(seconds)]


def pictures_of(page):
    found = re.findall(
        r'<img src="data:image/jpeg;base64,([^"]+)" width="(\d+)" height="(\d+)"', page
    )
    for content, width, height in found:
        image = Image.open(io.BytesIO(base64.b64decode(content)))
        assert image.size == (int(width), int(height))
        yield number_of(np.asarray(image)), image.size


def test_a_picture_of_each_segment_from_its_middle():
    found = list(pictures_of(timeline_page(timeline(58), frames(58))))
    # The strip above the map and the cards below it; the last segment has three seconds.
    middles = [2, 7, 12, 17, 22, 27, 32, 37, 42, 47, 52, 56]
    assert [number for number, _ in found] == middles * 2
    assert {size for _, size in found} == {(192, 108)}


def test_pictures_have_the_video_s_own_aspect():
    assert size_of(720, 1280) == (108, 192)
    assert size_of(1920, 800) == (192, 80)
    assert size_of(10_000, 2) == (192, 1)
    content = base64.b64decode(data_uri(picture(5, 299, 299), (96, 54)).partition(",")[2])
    assert Image.open(io.BytesIO(content)).format == "JPEG"


def test_colours_follow_scores():
    page = timeline_page(timeline(), frames())
    (map_,) = re.findall(r"<table class=\"heat\".*?</table>", page, re.S)
    rows = map_.partition("<tbody>")[2].split("<tr>")[1:]
    assert len(rows) == 8
    # label 0 is the best of the first segment, the fourth of the seventh, then far below.
    depths = re.findall(r"rgba\(56,120,219,([\d.]+)\)", rows[0])
    by_hand = [0.8 * (0.9 / rank) ** 0.5 for rank in (1, 4, 3, 2, 1)]
    assert [float(one) for one in depths] == pytest.approx(by_hand[: len(depths)], abs=1e-3)
    assert re.findall(r'title="([^"]+)"', rows[0])[0] == "0:00 – 0:05: 0.90"
    assert rows[0].count('<td class="none">') == 12 - len(depths)


def test_a_long_video_has_some_pictures_above_and_all_below():
    page = timeline_page(timeline(300), frames(300))
    strip = page.partition('<tr class="strip">')[2].partition("</tr>")[0]
    assert strip.count("<img") == 12
    assert page.count("<img") == 12 + 60
    assert 'class="heat dense"' in page
    assert len(page.encode()) < 1_500_000


def test_everything_is_escaped_and_said():
    page = timeline_page(timeline(name=EVIL, model={"folder": EVIL, "data_source": EVIL}), frames())
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; Söhne" in page
    assert all("alt=" in one for one in re.findall(r"<img [^>]*>", page))
    assert "mean nothing" not in page
    for words in (
        "123,456 bytes",
        "h264, 1280 × 720, 29.97 frames/s",
        "aac, 60.0 s used",
        "d" * 32,
    ):
        assert words in page


def test_what_means_nothing_is_said_first():
    found = timeline(seed=7, model={"features_mark": "random weights (seed 7)"})
    page = timeline_page(found, frames())
    body = page.partition("<main>")[2]
    assert body.strip().startswith('<section class="alarm" role="alert"><h2>These labels mean not')
    assert "the model was trained on features of random weights (seed 7)" in body
    table = timeline_table(found)
    assert table.startswith("THESE LABELS MEAN NOTHING: the video's features come from networks")
    assert max(map(len, table.splitlines())) <= 100


def test_notes():
    facts = {"duration": 4000.0, "has_audio": False, "audio_codec": "", "broken": 2}
    found = timeline(facts=facts, model={"max_frames": 30})
    assert found.notes == [
        "The first 1:00 of 1:06:40 are looked at.",
        "The labels of the whole video are of its first 0:30: so many frames the model takes.",
        "The file is damaged: 2 packets of its picture and 0 of its sound do not decode.",
        "The video has no sound: the model is given silence.",
    ]
    page = timeline_page(found, frames())
    assert all(note in page for note in found.notes)
    assert "silent" in page


def test_words():
    assert [score_text(one) for one in (0, 0.001, 0.005, 0.926, 1)] == [
        "0.00", "<0.01", "0.01", "0.93", "1.00",
    ]  # fmt: skip
    assert [clock(one) for one in (0, 65.9, 3601)] == ["0:00", "1:05", "1:00:01"]


def test_the_table_in_a_terminal():
    found = timeline(12, name="x", labels=[{**classes(1)[0], "name": "a\x1b[31m" + "b" * 60}])
    table = timeline_table(found).splitlines()
    assert table[0].split() == ["label", "score"]
    assert "\x1b" not in "".join(table)
    assert table[1].endswith("0.90  " + "█" * 27)
    assert table[-3:] == [
        "0:00 – 0:05  label 0 0.90, label 1 0.45, label 2 0.30",
        "0:05 – 0:10  label 1 0.90, label 2 0.45, label 3 0.30",
        "0:10 – 0:12  label 2 0.90, label 3 0.45, label 4 0.30",
    ]


_BROKEN = """<script>
addEventListener("load", () => {
  for (const one of document.images) if (!one.naturalWidth) console.error("not loaded: " + one.alt);
});
</script>"""


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("seconds", [3, 150])
def test_in_a_browser(width, seconds, tmp_path):
    path = tmp_path / "timeline.html"
    name = "a-name-" + "x" * 200 + ".mp4"
    found = timeline(seconds, name=name, seed=1, facts={"width": 720, "height": 1280})
    page = timeline_page(found, frames(seconds))
    path.write_text(page.replace("</body>", f"{_BROKEN}</body>"), encoding="utf-8")
    seen = look(path, width, tmp_path, dark=seconds == 3)
    assert seen.width <= seen.window
    assert (seen.dark, seen.complaints) == (seconds == 3, [])
    assert "http" not in re.sub(r"data:[^\"]+", "", page)


@needs_browser
def test_a_picture_that_does_not_load_would_be_seen(tmp_path):
    path = tmp_path / "page.html"
    path.write_text(f'<body><img src="data:image/jpeg;base64,AA" alt="x">{_BROKEN}</body>')
    assert "not loaded: x" in "".join(look(path, 500, tmp_path).complaints)
