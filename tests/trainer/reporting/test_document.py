"""One content, read as Markdown and as HTML."""

import pytest
from markupsafe import Markup

from tests.documents import Words, markdown_to_html
from trainer.reporting.document import (
    Code,
    Document,
    Figure,
    Heading,
    Literal,
    Points,
    Section,
    Table,
    Text,
    Tiles,
    as_html,
    as_markdown,
)

NASTY = [
    "<script>alert(1)</script>", "a | b", "`tick`", "*bold* _slant_", "[link](http://x)", "&lt;",
    "Arts & Crafts", "# no heading", "1. no list", "- no list", "~~out~~", "back\\slash", "+0.5",
    "two\nlines", "![](x)", "<!-- gone -->", "https://x", "R&D;",
]  # fmt: skip


def document(*parts):
    return Document("Title", "subtitle", [Section("Section", "How to read it.", parts)])


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("make", [Text, Heading, lambda t: Points([("", t)])])
def test_a_text_is_shown_as_it_is(make, text):
    shown = Words(markdown_to_html(as_markdown(document(make(text)))))
    assert shown.said[-1] == " ".join(text.split())
    assert shown.tags <= {"h1", "h2", "h3", "p", "ul", "li"}
    assert shown.tags.isdisjoint({"script", "a", "img", "strong", "em", "ol"})


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("kind", [str, Literal])
def test_a_cell_is_shown_as_it_is_and_stays_one_cell(kind, text):
    rows = [("name", kind(text), "last")]
    shown = Words(markdown_to_html(as_markdown(document(Table(("a", "b", "c"), rows)))))
    cells = [one for one in shown.said if one not in ("Title", "subtitle", "Section")][1:]
    assert cells == ["a", "b", "c", "name", " ".join(text.split()), "last"]
    page = as_html(document(Table(("a", "b", "c"), rows)))
    assert "<script" not in page.partition("</style>")[2]
    assert Words(page).said[-2] == " ".join(text.split())


def test_both_say_the_same():
    parts = [
        Tiles([("0.5", "GAP")]),
        Points([("For", "videos")]),
        Table(("", "n"), [("a & b", "3"), (Literal("x|y"), "4")]),
        Heading("Below"),
        Code("print('<b>')\n```", "python"),
        Figure(Markup("<svg></svg>"), "A drawing."),
    ]
    page = Words(as_html(document(*parts)))
    marked = Words(markdown_to_html(as_markdown(document(*parts))))
    expected = ["For: videos", "n", "a & b", "3", "x|y", "4", "Below", "print('<b>') ```"]
    assert page.said[-len(expected) - 1 :] == [*expected, "A drawing."]
    assert marked.said[-len(expected) :] == expected
    assert marked.said[-len(expected) - 2 : -len(expected)] == ["GAP", "0.5"]
    assert "svg" in page.tags


def test_a_row_s_name_is_no_number_whatever_it_begins_with():
    page = as_html(document(Table(("", "n"), [("0–59 frames", "3")])))
    assert page.count('<td class="number">') == 1


def test_a_long_table_is_folded_on_the_page_alone():
    part = Table(("a",), [("x",)], folded="All of it")
    assert "<details><summary>All of it</summary>" in as_html(document(part))
    assert "### All of it\n\n| a |" in as_markdown(document(part))
