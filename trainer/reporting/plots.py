"""Plots as inline SVG whose colours follow the page's, light or dark.

matplotlib draws them in placeholder colours, which are then replaced by the page's CSS variables;
text stays text.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

_INK, _SOFT, _LINE = "#010101", "#020202", "#030303"
_SERIES = ("#040404", "#050505", "#060606")
_VARIABLES = dict(
    zip((_INK, _SOFT, _LINE, *_SERIES), ("ink", "soft", "line", "one", "two", "three"), strict=True)
)
_HEAT = (0.22, 0.47, 0.86)
"""Red, green and blue of a heat map, which read on light and on dark."""
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "nextvlad",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _SOFT,
    "text.color": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def lines(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    x_label: str,
    y_label: str,
    *,
    log: str = "",
    y_limits: tuple[float, float] | None = None,
    markers: bool = False,
    diagonal: bool = False,
) -> Markup:
    """Up to three named curves, each (x, y).

    Args:
        log: axes in logarithmic scale: "", "x", "y" or "xy".
        diagonal: draw the line of equal x and y, from 0 to 1.
    """

    def draw(axes: Any) -> None:
        if diagonal:
            axes.plot((0, 1), (0, 1), color=_SOFT, linewidth=0.9, linestyle="--")
        for color, (name, (x, y)) in zip(_SERIES, series.items(), strict=False):
            axes.plot(x, y, color=color, label=name, linewidth=1.6, marker="o" if markers else "",
                      markersize=3)  # fmt: skip
        if "x" in log:
            axes.set_xscale("log")
        if "y" in log:
            axes.set_yscale("log")
        if y_limits:
            axes.set_ylim(*y_limits)
        if len(series) > 1:
            axes.legend()

    return _svg(draw, x_label, y_label)


def points(x: ArrayLike, y: ArrayLike, x_label: str, y_label: str) -> Markup:
    """One point for each pair, x in logarithmic scale, y from 0 to 1."""

    def draw(axes: Any) -> None:
        axes.scatter(x, y, s=9, color=_SERIES[0], linewidths=0, alpha=0.7)
        axes.set_xscale("log")
        axes.set_ylim(0, 1.02)

    return _svg(draw, x_label, y_label)


def bars(x: Sequence[float], heights: ArrayLike, x_label: str, y_label: str) -> Markup:
    """One bar at each x, as wide as the distance between them."""

    def draw(axes: Any) -> None:
        width = 0.9 * (float(np.min(np.diff(x))) if len(x) > 1 else 1.0)
        axes.bar(x, heights, width=width, color=_SERIES[0])
        axes.grid(visible=False, axis="x")

    return _svg(draw, x_label, y_label)


def band(
    x: ArrayLike, middle: ArrayLike, half_width: ArrayLike, x_label: str, y_label: str
) -> Markup:
    """A curve with a band of ± half_width around it."""

    def draw(axes: Any) -> None:
        centre, half = np.asarray(middle), np.asarray(half_width)
        axes.fill_between(
            x, centre - half, centre + half, color=_SERIES[0], alpha=0.25, linewidth=0
        )
        axes.plot(x, centre, color=_SERIES[0], linewidth=0.7)

    return _svg(draw, x_label, y_label)


def heat_map(
    shares: ArrayLike,
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
    x_label: str,
    y_label: str,
) -> Markup:
    """Shares [rows, columns] from 0 to 1 as depth of one colour, the first row at the bottom.

    A picture in the figure; what is 0 is transparent, so that it is right on light and dark pages.
    """
    alpha = np.sqrt(np.clip(np.asarray(shares, np.float64), 0, 1))
    picture = np.broadcast_to(np.array([*_HEAT, 0.0]), (*alpha.shape, 4)).copy()
    picture[..., 3] = alpha

    def draw(axes: Any) -> None:
        axes.imshow(picture, origin="lower", aspect="auto", interpolation="nearest",
                    extent=(*x_limits, *y_limits))  # fmt: skip
        axes.grid(visible=False)

    return _svg(draw, x_label, y_label)


def matrix(
    shares: Sequence[Sequence[float]], names: Sequence[str], x_label: str, y_label: str
) -> Markup:
    """Shares [n, n] from 0 to 1 as depth of one colour, the same names for rows and columns."""
    alpha = np.sqrt(np.clip(np.asarray(shares, np.float64), 0, 1))
    picture = np.broadcast_to(np.array([*_HEAT, 0.0]), (*alpha.shape, 4)).copy()
    picture[..., 3] = alpha
    places = np.arange(len(names))

    def draw(axes: Any) -> None:
        axes.imshow(picture, aspect="auto", interpolation="nearest")
        axes.set_xticks(places, names, rotation=60, ha="right", rotation_mode="anchor", fontsize=6)
        axes.set_yticks(places, names, fontsize=6)
        axes.grid(visible=False)

    return _svg(draw, x_label, y_label, height=4.4)


def _svg(draw: Any, x_label: str, y_label: str, height: float = 2.7) -> Markup:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, height), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        draw(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var(--{variable})")
    # Ids repeat from figure to figure, and a page holds many: each needs names of its own.
    unique = f"p{zlib.crc32(text.encode())}"
    text = re.sub(r'(id="|url\(#|xlink:href="#)', rf"\g<1>{unique}", text)
    return Markup(text)
