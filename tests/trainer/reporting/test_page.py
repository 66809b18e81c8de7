"""The page frame, and how a real browser shows a whole report."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from markupsafe import Markup

from components.evaluate.report import evaluation_section
from components.statistics.report import statistics_section
from components.statistics.step import compute_statistics
from trainer.reporting import plots
from trainer.reporting.page import page, section, table, tiles
from trainer.statistics import read_statistics, write_statistics

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCRIPT = """<script>
addEventListener("load", () => {
  const root = document.documentElement;
  document.title = [root.scrollWidth, innerWidth, performance.getEntriesByType("resource").length,
                    document.querySelectorAll("svg").length].join(" ");
});
</script>"""


def test_text_is_escaped_and_numbers_align():
    html = table(("name", "count"), [("<b>&", "3"), (Markup("<i>x</i>"), "10")])
    assert "&lt;b&gt;&amp;" in html
    assert "<i>x</i>" in html
    assert html.count('class="number"') == 3
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
def report(manifest, tmp_path):
    by_split, _ = compute_statistics(manifest, [])
    write_statistics(tmp_path / "s", manifest, by_split, [])
    summary, arrays = read_statistics(tmp_path / "s", manifest.fingerprint)
    metrics = dict.fromkeys(("gap", "map", "map_all_classes", "hit_at_1", "perr"), 0.5)
    curve = {"recall": np.linspace(0, 1, 9).tolist(), "precision": np.linspace(1, 0, 9).tolist()}
    evaluation = {
        "names": {"model": "nextvlad"}, "metrics": {"model": metrics | {"positives": 3}},
        "precision_recall": {"model": curve, "ceiling": curve}, "videos": 20, "split": "validate",
    }  # fmt: skip
    classes = [
        {"class": str(i), "name": f"A rather long name of class {i}", "vertical": "Games",
         "positives": "9", "model": "0.5"} for i in range(12)
    ]  # fmt: skip
    path = tmp_path / "report.html"
    html = page(
        "Report",
        "a" * 200,
        [statistics_section(manifest, summary, arrays), evaluation_section(evaluation, classes)],
    )
    path.write_text(html.replace("</body>", SCRIPT + "</body>"), encoding="utf-8")
    return path


@pytest.mark.skipif(not CHROMIUM, reason="no chromium here; CI installs one")
@pytest.mark.parametrize("width", [500, 1280])
def test_a_browser_shows_it_whole_and_loads_nothing(report, width, tmp_path):
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={tmp_path / 'user'}",
         f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom",
         f"file://{report}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    scroll_width, inner_width, resources, drawings = map(
        int, re.search(r"<title>([\d ]+)</title>", done.stdout)[1].split()
    )
    assert scroll_width <= inner_width
    assert resources == 0
    assert drawings == 6
    assert "CONSOLE" not in done.stderr
