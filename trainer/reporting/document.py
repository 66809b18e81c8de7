"""A text with tables that is written once and read as Markdown or as an HTML page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from trainer.reporting import page as frame

_MARKDOWN = re.compile(r"([\\`*_\[\]|~])")
"""What Markdown reads as its own, anywhere in a line."""


class Literal(str):
    """Text that is shown as it is, in the type of code: a name, a path, a value."""

    __slots__ = ()


Cell = str | Literal


@dataclasses.dataclass(frozen=True)
class Text:
    text: str


@dataclasses.dataclass(frozen=True)
class Heading:
    text: str


@dataclasses.dataclass(frozen=True)
class Points:
    """A list: each a word or two that name the point, or none, and a sentence."""

    items: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Code:
    text: str
    language: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells; a long one may be `folded` below these words where the page can do that."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: str = ""


@dataclasses.dataclass(frozen=True)
class Tiles:
    """The few numbers that matter: (value, what it is)."""

    values: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Figure:
    """A drawing, which Markdown has not: it is to show nothing that the tables do not say."""

    svg: Markup
    caption: str


Part = Text | Heading | Points | Code | Table | Tiles | Figure


@dataclasses.dataclass(frozen=True)
class Section:
    title: str
    introduction: str
    parts: Sequence[Part]


@dataclasses.dataclass(frozen=True)
class Document:
    title: str
    subtitle: str
    sections: Sequence[Section]


def as_html(document: Document) -> str:
    """A page of its own (`trainer.reporting.page`); all text is escaped."""
    sections = []
    for one in document.sections:
        parts, figures = [], []
        for part in one.parts:
            if isinstance(part, Figure):
                figures.append((part.svg, part.caption))
                continue
            if figures:  # those that follow each other stand side by side
                parts.append(frame.plots(figures))
                figures = []
            parts.append(_html(part))
        if figures:
            parts.append(frame.plots(figures))
        sections.append(frame.section(one.title, one.introduction, *parts))
    return frame.page(document.title, document.subtitle, sections)


def as_markdown(document: Document) -> str:
    """CommonMark with GitHub's tables; nothing in a text or cell is read as markup."""
    blocks = [f"# {_escaped(document.title)}", _paragraph(document.subtitle)]
    for one in document.sections:
        blocks += [f"## {_escaped(one.title)}", _paragraph(one.introduction)]
        for part in one.parts:
            blocks += _markdown(part)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _html(part: Part) -> Markup:
    match part:
        case Text(text):
            return Markup("<p>{}</p>").format(text)
        case Heading(text):
            return frame.heading(text)
        case Points(items):
            return frame.points(items)
        case Code(text):
            return Markup("<pre><code>{}</code></pre>").format(text)
        case Table(columns, rows, folded):
            table = frame.table(columns, [_html_row(row) for row in rows])
            return frame.folded(folded, table) if folded else table
        case Tiles(values):
            return frame.tiles(values)
    raise TypeError(f"no part of a document: {part!r}")


def _html_row(row: Sequence[Cell]) -> list[str | Markup]:
    """The first cell names the row: it is no number, whatever it begins with."""
    cells: list[str | Markup] = [
        Markup("<code>{}</code>").format(str(cell)) if isinstance(cell, Literal) else cell
        for cell in row
    ]
    return [Markup("<span>{}</span>").format(cells[0]), *cells[1:]]


def _markdown(part: Part) -> Iterator[str]:
    match part:
        case Text(text):
            yield _paragraph(text)
        case Heading(text):
            yield f"### {_escaped(text)}"
        case Points(items):
            yield "\n".join(
                f"* **{_escaped(name)}:** {_escaped(text)}" if name else f"* {_paragraph(text)}"
                for name, text in items
            )
        case Code(text, language):
            fence = _fence(text, 3)
            yield f"{fence}{language}\n{text}\n{fence}"
        case Table(columns, rows, folded):
            if folded:
                yield f"### {_escaped(folded)}"
            lines = [[_escaped(one) for one in columns], ["---"] * len(columns)]
            lines += [[_markdown_cell(cell) for cell in row] for row in rows]
            yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
        case Tiles(values):
            yield from _markdown(Table(("", ""), [(words, value) for value, words in values]))
        case Figure():
            return


def _markdown_cell(cell: Cell) -> str:
    if not isinstance(cell, Literal):
        return _escaped(cell)
    if not cell:
        return ""
    text = " ".join(cell.splitlines())
    fence = _fence(text, 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    # A table takes a bar for its own even in code, unless it is escaped.
    return f"{fence}{pad}{text}{pad}{fence}".replace("|", "\\|")


def _fence(text: str, least: int) -> str:
    """More backticks than the text has in a row."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _escaped(text: str) -> str:
    """Words within a line that Markdown shows as they are, HTML's characters included."""
    line = _MARKDOWN.sub(r"\\\1", " ".join(str(text).split()))
    return re.sub(r"&(?=#?\w+;)", "&amp;", line).replace("<", "&lt;").replace(">", "&gt;")


def _paragraph(text: str) -> str:
    """The same, where what it begins with would make it a heading or a list."""
    line = _escaped(text)
    line = re.sub(r"^([#+-])", r"\\\1", line)
    return re.sub(r"^(\d+)([.)])(?= |$)", r"\1\\\2", line)
