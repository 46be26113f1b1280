"""What a run is asked to make of each document (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kit.client.ranges import Span

MD, JSON, JSONL, DOCX, HTML = FORMATS = ("md", "json", "jsonl", "docx", "html")
DEFAULT_FORMATS = (MD, JSON)
RESTRUCTURE = "restructure"  # beside DOCX what a service may not make of the pages
# Of /layout-parsing, and what /restructure-pages is told of them (paddlex 3.7.2, schemas/paddleocr_vl.py).
_OVER_PAGES = ("prettifyMarkdown", "showFormulaNumber", "mergeTables", "relevelTitles")


@dataclass(frozen=True)
class Wish:
    """formats: of FORMATS. pages: spans, all where there are none; max_pages: the first of them at most.

    restructure: tables and titles that go over page breaks are put together. options: fields of the API.
    """

    formats: tuple[str, ...] = DEFAULT_FORMATS
    pages: tuple[Span, ...] = ()
    max_pages: int | None = None
    restructure: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """What has to be the same in every run into one folder."""
        return {
            "formats": sorted(self.formats),
            "pages": [list(span) for span in self.pages],
            "max_pages": self.max_pages,
            "restructure": self.restructure,
            "options": dict(sorted(self.options.items())),
        }

    @property
    def page_options(self) -> dict[str, Any]:
        """Of each request with pages: what goes over several requests comes later."""
        return {name: value for name, value in self.options.items() if name not in ("restructurePages", "outputFormats")}

    @property
    def over_pages(self) -> dict[str, Any]:
        """Of the request that puts pages together anew."""
        return {name: self.options[name] for name in _OVER_PAGES if name in self.options}

    @property
    def over_document(self) -> dict[str, Any]:
        """Of the request that makes one DOCX of all pages: it says what the Markdown says."""
        as_they_are = {} if self.restructure else {"mergeTables": False, "relevelTitles": False}
        as_one = {"concatenatePages": True, "outputFormats": ["docx"], "returnMarkdownImages": False}
        return self.over_pages | as_they_are | as_one
