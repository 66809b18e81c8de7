"""A real browser looks at a page."""

import dataclasses
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no chromium here; CI installs one")
WIDTHS = (500, 1280)
"""Of a window, in pixels: Chromium has none narrower than 500."""
_SCRIPT = """<script>
addEventListener("load", () => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  document.title = [root.scrollWidth, innerWidth, performance.getEntriesByType("resource").length,
                    document.querySelectorAll("svg").length, Number(dark),
                    getComputedStyle(document.body).color].join("|");
});
</script>"""


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a browser made of a page.

    Attributes:
        width, window: of the page and of the window, in pixels.
        resources: that were loaded, from anywhere.
        drawings: SVG elements.
        dark: whether the page was shown dark.
        ink: colour of its text.
        complaints: lines of the console.
    """

    width: int
    window: int
    resources: int
    drawings: int
    dark: bool
    ink: str
    complaints: list[str]


def look(path, width, folder, dark=False):
    """Open a page in headless Chromium."""
    shown = folder / f"shown-{width}-{dark}.html"
    html = path.read_text(encoding="utf-8")
    shown.write_text(html.replace("</body>", _SCRIPT + "</body>"), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={folder / 'user'}",
         f"--window-size={width},900", "--virtual-time-budget=2000", "--dump-dom",
         *(["--blink-settings=preferredColorScheme=0"] if dark else []), f"file://{shown}"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    *numbers, is_dark, ink = re.search(r"<title>([^<]+)</title>", done.stdout)[1].split("|")
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Seen(*map(int, numbers), bool(int(is_dark)), ink, complaints)
