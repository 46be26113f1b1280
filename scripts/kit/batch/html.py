"""Markdown of a page as HTML that can do nothing: no script, no request to anywhere, whatever stood in the document."""

from __future__ import annotations

import functools
import html as escape
from collections.abc import Collection
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

# Tags and attributes that PaddleX and Markdown make (paddlex 3.7.2: tables, centred pictures and captions).
_TAGS = frozenset(
    "a b blockquote br caption center code col colgroup dd del div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i img ins "
    "li ol p pre s section small span strong sub sup table tbody td tfoot th thead tr u ul".split()
)
_VOID = frozenset(("br", "col", "hr", "img"))
_ATTRIBUTES = frozenset("align alt border colspan height href rowspan src start title valign width".split())
# What is inside these is no text either.
_SILENT = frozenset("script style iframe object embed template svg math noscript title textarea xmp".split())

_STYLE = (
    "body{max-width:50rem;margin:auto;padding:1rem;font-family:sans-serif;line-height:1.5}"
    "table{border-collapse:collapse}td,th{border:1px solid;padding:.2rem .5rem}img{max-width:100%}"
    "section{border-bottom:1px solid;padding:1rem 0}"
)
# A second wall behind the sanitizer.
_POLICY = "default-src 'none'; img-src 'self' file: http: https:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
END = "</body>\n</html>\n"


@functools.cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt  # only who asks for HTML pays for it

    return MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def head(title: str) -> str:
    return (
        '<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )


def page(number: int, markdown: str, pictures: Collection[str] = ()) -> str:
    """pictures: addresses elsewhere that may be shown: those that the service has put its own pictures at."""
    return f'<section id="page-{number}">\n{sanitized(_markdown().render(markdown), pictures)}</section>\n'


def unread(number: int, cause: str) -> str:
    return f'<section id="page-{number}">\n<p><em>Page {number} was not read: {escape.escape(cause)}</em></p>\n</section>\n'


def sanitized(text: str, pictures: Collection[str] = ()) -> str:
    """HTML of the known tags and attributes alone, every tag closed; pictures only from beside the file, and these."""
    cleaner = _Cleaner(pictures)
    cleaner.feed(text)
    cleaner.close()
    return cleaner.result()


class _Cleaner(HTMLParser):
    def __init__(self, pictures: Collection[str]) -> None:
        super().__init__(convert_charrefs=True)
        self._pictures = pictures
        self._out: list[str] = []
        self._open: list[str] = []
        self._silent: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent.append(tag)
        if self._silent or tag not in _TAGS:
            return
        kept = [(name, value or "") for name, value in attributes if self._is_harmless(name, value or "")]
        self._out.append(f"<{tag}" + "".join(f' {name}="{escape.escape(value)}"' for name, value in kept) + ">")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in _SILENT:
            self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        if self._silent:
            if tag in self._silent:
                del self._silent[self._silent.index(tag) :]
            return
        if tag in self._open:
            while True:
                last = self._open.pop()
                self._out.append(f"</{last}>")
                if last == tag:
                    break

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self._out.append(escape.escape(data, quote=False))

    def result(self) -> str:
        return "".join(self._out) + "".join(f"</{tag}>" for tag in reversed(self._open))

    def _is_harmless(self, name: str, value: str) -> bool:
        if name not in _ATTRIBUTES or name not in ("href", "src"):
            return name in _ATTRIBUTES
        try:
            parts = urlsplit("".join(value.split()).lower())
        except ValueError:
            return False
        if name == "src":
            return value in self._pictures or not (parts.scheme or parts.netloc)
        return parts.scheme in ("", "http", "https", "mailto")  # followed only by who clicks it
