"""What a reader of Markdown or HTML is shown."""

import html.parser

from markdown_it import MarkdownIt


def markdown_to_html(text):
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text)


class Words(html.parser.HTMLParser):
    """The text of each element that holds some, and all tags."""

    def __init__(self, page):
        super().__init__()
        self.words, self.tags = [], set()
        self.feed(page)

    def handle_starttag(self, tag, _):
        self.tags.add(tag)
        if tag in ("td", "th", "p", "li", "h1", "h2", "h3", "code", "figcaption", "summary"):
            self.words.append("")

    def handle_data(self, data):
        if self.words:
            self.words[-1] += data

    @property
    def said(self):
        return [" ".join(text.split()) for text in self.words if text.strip()]
