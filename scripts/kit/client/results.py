"""What comes back: documents, pages, blocks, pictures; and how a reply of the service becomes them.

The contract is PaddleX's own (paddlex/inference/serving/schemas/paddleocr_vl.py, 3.7.2).
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.errors import ExitCode, KitError
from kit.reply import contents


@dataclass(frozen=True)
class Block:
    """A piece of a page. label: text, table, image, … box: left, top, right, bottom in pixels of the page as it was rendered.

    content: text, an HTML table, a formula; empty for pictures. order: place in reading order, None for what has none.
    """

    label: str
    box: tuple[float, float, float, float]
    content: str
    order: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture that the Markdown shows. key: its path as the service wrote it there.

    data: JPEG or PNG; empty where the service keeps its pictures elsewhere and sends a `url`.
    """

    key: str
    data: bytes
    url: str = ""


@dataclass(frozen=True)
class Page:
    """One page. number: in the document, from 1. markdown: as the service wrote it. width, height: pixels, 0 where not told.

    pruned: `prunedResult` as it came, with the blocks and the settings of the models.
    """

    number: int
    markdown: str
    pictures: tuple[Picture, ...]
    pruned: dict[str, Any] = field(repr=False)
    width: int = 0
    height: int = 0

    @property
    def blocks(self) -> tuple[Block, ...]:
        """In the order of the reply, which is the reading order."""
        return _blocks(self.pruned)

    @property
    def has_text(self) -> bool:
        """Whether text was read in any block; a blank page has none."""
        return any(contents({"prunedResult": self.pruned}))


@dataclass(frozen=True)
class FailedPage:
    """A page that could not be read. number: from 1. error: why."""

    number: int
    error: KitError


@dataclass(frozen=True)
class Document:
    """A parsed document. name: of the file. page_count: its pages, of which `pages` are those that were asked for and read."""

    name: str
    page_count: int
    pages: tuple[Page, ...]
    failed: tuple[FailedPage, ...] = ()

    @property
    def markdown(self) -> str:
        """All pages, a blank line between them."""
        return "\n\n".join(page.markdown for page in self.pages)


class PagesFailed(KitError):
    """Some pages of a document could not be read. document: with the others, and with `failed`."""

    def __init__(self, document: Document) -> None:
        first = document.failed[0]
        numbers = ", ".join(str(page.number) for page in document.failed[:10]) + ("…" if len(document.failed) > 10 else "")
        which = f"page{'s' if len(document.failed) > 1 else ''} {numbers} of {document.page_count}"
        what = document.name if document.page_count == 1 else f"{document.name}, {which}"
        code = first.error.code if not document.pages else ExitCode.SOME_FAILED
        super().__init__(f"{what}: {first.error.message}", first.error.hint, code)
        self.document = document


class NotOfTheContract(Exception):
    """A page of a reply has another shape."""


def page_of(reply: dict[str, Any], number: int, info: Any = None) -> Page:
    """One element of `layoutParsingResults`. info: its part of `dataInfo`. Raises NotOfTheContract."""
    try:
        markdown, pruned = reply["markdown"], reply["prunedResult"]
        if not isinstance(markdown["text"], str) or not isinstance(pruned, dict):
            raise TypeError("markdown.text and prunedResult")
        _blocks(pruned)
        pictures = tuple(_picture(key, value) for key, value in (markdown.get("images") or {}).items())
        size = info if isinstance(info, dict) else {}
        return Page(number, markdown["text"], pictures, pruned, int(size.get("width") or 0), int(size.get("height") or 0))
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, binascii.Error) as error:
        raise NotOfTheContract(repr(error)[:120]) from None


def pages_of(result: dict[str, Any], numbers: Sequence[int]) -> list[Page]:
    """The pages of a reply's `result`; numbers: theirs in the document, as many. Raises NotOfTheContract."""
    info = result.get("dataInfo") or {}
    sizes = info.get("pages") if isinstance(info, dict) else None
    if not isinstance(sizes, list) or len(sizes) != len(numbers):
        sizes = [info] * len(numbers)
    return [page_of(one, number, size) for one, number, size in zip(result["layoutParsingResults"], numbers, sizes, strict=True)]


def _picture(key: str, value: str) -> Picture:
    if value.startswith(("http://", "https://")):  # Serving.return_urls
        return Picture(key, b"", value)
    return Picture(key, base64.b64decode(value, validate=True))


def _blocks(pruned: dict[str, Any]) -> tuple[Block, ...]:
    if not isinstance(pruned["parsing_res_list"], list):
        raise TypeError("parsing_res_list")
    return tuple(_block(one) for one in pruned["parsing_res_list"])


def _block(one: dict[str, Any]) -> Block:
    label, text = one["block_label"], one["block_content"]
    left, top, right, bottom = one.get("block_bbox") or (0, 0, 0, 0)
    if not isinstance(label, str) or not isinstance(text, str) or not all(map(math.isfinite, (left, top, right, bottom))):
        raise TypeError("block_label, block_content, block_bbox")
    return Block(label, (left, top, right, bottom), text, one.get("block_order"))
