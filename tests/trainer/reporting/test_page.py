"""The page frame, and how a real browser shows a whole report."""

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest
from markupsafe import Markup

from tests.browser import WIDTHS, look, needs_browser
from trainer.reporting import plots
from trainer.reporting.page import page, section, table, tiles
from trainer.reporting.page import plots as figures


def test_text_is_escaped_and_numbers_align():
    html = table(("name", "count"), [("<b>&", "3"), (Markup("<i>x</i>"), "10")])
    assert "&lt;b&gt;&amp;" in html
    assert "<i>x</i>" in html
    assert html.count('class="number"') == 3
    assert table(("a", "b"), [("+0.5", "-x"), ("−1", "2")]).count('class="number"') == 3
    assert "<script>" not in page("<script>", "x", [section("<script>", "y", tiles([("<", ">")]))])


def test_equal_plots_have_equal_bytes_and_ids_of_their_own():
    one, again = (plots.lines({"a": ([1, 2], [3, 4])}, "x", "y") for _ in range(2))
    other = plots.lines({"a": ([1, 2], [3, 5])}, "x", "y")
    assert one == again
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (one, other)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for name in re.findall(r'(?:url\(#|href="#)([^")]+)', one):
        assert name in ids[0]


def test_plots_take_the_page_s_colours():
    svg = plots.lines({"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 3])}, "x", "y")
    assert {"var(--one)", "var(--two)", "var(--soft)"} <= set(re.findall(r"var\(--\w+\)", svg))
    assert not re.findall(r"#0[1-6]0[1-6]0[1-6]", svg)


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.html"
    names = [f"A rather long name of class {i}" for i in range(12)]
    drawn = [
        (heat(), "It is embedded."),
        (plots.lines({"a": ([0, 1], [0.1, 1])}, "x", "y", diagonal=True), "A line."),
        (plots.matrix(np.eye(12).tolist(), names, "x", "y"), "Names on both sides."),
    ]
    rows = [(i, name, f"{i / 12:+.4f}", "x" * 40) for i, name in enumerate(names)]
    html = page(
        "Report",
        "a" * 200,
        [
            section("Plots", "Some pictures.", figures(drawn)),
            section("Table", "Some rows.", table(("class", "name", "value", "more"), rows)),
        ],
    )
    path.write_text(html, encoding="utf-8")
    return path


def heat():
    return plots.heat_map(np.eye(40), (0, 40), (-2, 2), "x", "y")


def test_a_heat_map_is_transparent_where_nothing_is():
    picture = re.search(r"data:image/png;base64,([^\"]+)", heat())[1]
    pixels = matplotlib.image.imread(io.BytesIO(base64.b64decode(picture)))
    assert pixels[..., 3].min() == 0
    assert pixels[..., 3].max() == 1


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_whole_and_loads_nothing(report, width, tmp_path):
    seen = look(report, width, tmp_path)
    assert seen.width <= seen.window
    assert seen.resources == 0
    assert seen.drawings == 3
    assert not seen.complaints
