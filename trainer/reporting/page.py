"""The page frame: one self-contained HTML file, light and dark, phone and desktop."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

_HERE = Path(__file__).parent
_NUMBER = re.compile(r"[+\-−]?[0-9]")


def page(title: str, subtitle: str, sections: Iterable[Markup]) -> str:
    """The HTML of a page; it loads nothing from anywhere."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string((_HERE / "page.html").read_text(encoding="utf-8"))
    style = Markup((_HERE / "page.css").read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, style=style, sections=list(sections))


def section(title: str, introduction: str, *parts: Markup) -> Markup:
    """A titled block with a sentence that says how to read it."""
    return Markup("<section><h2>{}</h2><p>{}</p>{}</section>").format(
        title, introduction, Markup("").join(parts)
    )


def tiles(values: Sequence[tuple[str, str]]) -> Markup:
    """The few numbers that matter, large: (value, what it is)."""
    cells = (Markup('<div class="tile"><b>{}</b><span>{}</span></div>').format(*v) for v in values)
    return Markup('<div class="tiles">{}</div>').format(Markup("").join(cells))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """A table; a column whose first cell starts with a digit, signed or not, aligns right.

    A cell may be Markup; everything else is escaped.
    """
    body = [[cell if isinstance(cell, Markup) else escape(cell) for cell in row] for row in rows]
    numeric = [bool(body) and bool(_NUMBER.match(str(body[0][i]))) for i in range(len(columns))]
    kind = [Markup(' class="number"') if is_number else Markup("") for is_number in numeric]

    def line(tag: str, cells: Sequence[Any]) -> Markup:
        joined = Markup("").join(
            Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), k, c)
            for k, c in zip(kind, cells, strict=True)
        )
        return Markup("<tr>{}</tr>").format(joined)

    lines = Markup("").join([line("th", list(columns)), *(line("td", row) for row in body)])
    return Markup('<div class="wide"><table>{}</table></div>').format(lines)


def plots(figures: Iterable[tuple[Markup, str]]) -> Markup:
    """Figures side by side where there is room: (svg, caption)."""
    cells = (
        Markup("<figure>{}<figcaption>{}</figcaption></figure>").format(*figure)
        for figure in figures
    )
    return Markup('<div class="plots">{}</div>').format(Markup("").join(cells))


def note(text: str, good: bool) -> Markup:
    """A sentence that is good or bad news."""
    return Markup('<p class="{}">{}</p>').format("good" if good else "bad", text)


def heading(text: str) -> Markup:
    return Markup("<h3>{}</h3>").format(text)


def points(items: Iterable[tuple[str, str]]) -> Markup:
    """A list: a word or two that name each point, or none, and a sentence."""
    lines = (
        Markup("<li><b>{}:</b> {}</li>").format(name, text)
        if name
        else Markup("<li>{}</li>").format(text)
        for name, text in items
    )
    return Markup("<ul>{}</ul>").format(Markup("").join(lines))


def folded(words: str, content: Markup) -> Markup:
    """What is shown when a reader opens it."""
    return Markup("<details><summary>{}</summary>{}</details>").format(words, content)
