"""Markdown of a page as HTML that can do nothing: no script, no request to anywhere, whatever stood in the document."""

from __future__ import annotations

import functools
import html as escape
import re
from collections.abc import Collection
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_inline import StateInline

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
# A second wall behind the sanitizer. `file:` is what 'self' does not mean for a page that lies on a disk.
_POLICY = "default-src 'none'; img-src 'self' file:{elsewhere}; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_ORIGIN = re.compile(r"https?://[\w.-]+(:\d+)?", re.ASCII)
_FORMULA = re.compile(r"\$\$.+?\$\$|\$(?:\\.|[^$\\\n])+\$(?!\d)", re.DOTALL)
_SILENT_TAG = re.compile(rf"<(/?)({'|'.join(sorted(_SILENT))})\b", re.IGNORECASE)
END = "</body>\n</html>\n"


@functools.cache
def _markdown() -> MarkdownIt:
    from markdown_it import MarkdownIt  # only who asks for HTML pays for it

    made = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    made.inline.ruler.before("escape", "formula", _formula)
    return made


def _formula(state: StateInline, silent: bool) -> bool:
    """A formula is text as it stands: its backslashes, stars and underlines are TeX's, not Markdown's."""
    match = _FORMULA.match(state.src, state.pos)
    if match is None:
        return False
    if not silent:
        state.push("text", "", 0).content = match[0]
    state.pos = match.end()
    return True


def head(title: str, pictures: Collection[str] = ()) -> str:
    """pictures: all that the pages show; those elsewhere are allowed to come from where they are, and from nowhere else."""
    elsewhere = "".join(f" {origin}" for origin in sorted({match[0] for match in map(_ORIGIN.match, pictures) if match}))
    return (
        '<!doctype html>\n<html>\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY.format(elsewhere=elsewhere)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
    )


def page(number: int, markdown: str, pictures: Collection[str] = ()) -> str:
    """pictures: the addresses that may be shown, those of the page's own pictures."""
    return f'<section id="page-{number}">\n{sanitized(_markdown().render(markdown), pictures)}</section>\n'


def unread(number: int, cause: str) -> str:
    return f'<section id="page-{number}">\n<p><em>Page {number} was not read: {escape.escape(cause)}</em></p>\n</section>\n'


def sanitized(text: str, pictures: Collection[str] = ()) -> str:
    """HTML of the known tags and attributes alone, every tag closed; no picture but these."""
    ends = {match[2].lower(): match.start() for match in _SILENT_TAG.finditer(text) if match[1]}

    def silent(match: re.Match[str]) -> str:
        """What is never closed is text, of a page about HTML for one: it must not silence all that follows."""
        return match[0] if match[1] or ends.get(match[2].lower(), 0) > match.start() else f"&lt;{match[2]}"

    text = _SILENT_TAG.sub(silent, text)
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
        if name == "src":
            return value in self._pictures
        if name != "href":
            return name in _ATTRIBUTES
        try:
            scheme = urlsplit("".join(value.split()).lower()).scheme
        except ValueError:
            return False
        return scheme in ("", "http", "https", "mailto")  # followed only by who clicks it
