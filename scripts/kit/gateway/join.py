"""Replies of ranges: what they hold, and one reply of them in page order. The text of a page is never written anew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kit import reply
from kit.gateway.body import Room, Spool

_PAGES = re.compile(r'"layoutParsingResults"\s*:\s*\[')
_BETWEEN = re.compile(r"[\s,]*")
_DECODER = json.JSONDecoder()
# A speck that layout detection takes for text, and of which the VLM reads nothing, is no failure of the VLM.
SPECKS = 2


class BadReply(Exception):
    """A replica's success that is none; says why."""


@dataclass(frozen=True)
class ReadPage:
    """One page of a reply. text: its JSON as it came. blocks: how many are to be read. has_text: whether any was."""

    text: str
    blocks: int
    has_text: bool

    @property
    def is_unread(self) -> bool:
        return self.blocks > 0 and not self.has_text


@dataclass(frozen=True)
class Reading:
    """A reply that is whole. data_info: its `dataInfo`; None in replies of /restructure-pages."""

    pages: tuple[ReadPage, ...]
    data_info: dict[str, Any] | None

    @property
    def has_text(self) -> bool:
        return any(page.has_text for page in self.pages)


def read_reply(body: bytes, pages: int) -> Reading:
    """Raises BadReply unless it is a success of this contract with so many pages."""
    try:
        text = body.decode()
        start = _PAGES.search(text)
        if start is None:
            raise ValueError("it has no layoutParsingResults")
        found: list[ReadPage] = []
        position = start.end()
        while text[position : position + 1] != "]":
            page, end = _DECODER.raw_decode(text, position)
            contents = reply.contents(page)
            found.append(ReadPage(text[position:end], len(contents), any(contents)))
            position = _BETWEEN.match(text, end).end()  # type: ignore[union-attr] (matches the empty text)
        envelope = json.loads(text[: start.end()] + text[position:])
        data_info = envelope["result"].get("dataInfo")
        if envelope["errorCode"] != 0:
            raise ValueError(f"errorCode {envelope['errorCode']}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadReply(f"the API's reply is not of the contract ({str(error)[:80]})") from None
    if len(found) != pages:
        hint = "; set max_num_input_imgs: null under Serving.extra in its pipeline config" if len(found) == 10 else ""
        raise BadReply(f"the API's reply has {len(found)} of {pages} pages{hint}")
    return Reading(tuple(found), data_info)


class Pages:
    """The pages of a document as they come in, in any order; beyond 1 MiB they lie in a file."""

    def __init__(self, count: int, room: Room) -> None:
        self._spool = Spool(room)
        self._places: list[tuple[int, int] | None] = [None] * count
        self._sizes: list[Any] = [None] * count
        self.read: list[ReadPage | None] = [None] * count

    def put(self, first: int, reading: Reading) -> None:
        """The pages from `first` on (from 0). Raises BadReply when they are there already, or the reply has no sizes."""
        info = reading.data_info or {}
        sizes = info.get("pages") if isinstance(info.get("pages"), list) else [info]
        if len(sizes) != len(reading.pages):
            raise BadReply("the API's reply has another number of pages in dataInfo")
        for offset, (page, size) in enumerate(zip(reading.pages, sizes, strict=True)):
            if self._places[first + offset] is not None:
                raise BadReply(f"page {first + offset + 1} came twice")
            self.write(first + offset, page.text)
            self._sizes[first + offset] = {"width": size.get("width"), "height": size.get("height")}
            self.read[first + offset] = ReadPage("", page.blocks, page.has_text)

    def write(self, number: int, text: str) -> None:
        """The JSON of one page (from 0), which takes the place of what was there."""
        data = text.encode()
        self._places[number] = (self._spool.size, len(data))
        self._spool.write(data)

    def page(self, number: int) -> bytes:
        """The JSON of one page (from 0)."""
        place = self._places[number]
        if place is None:
            raise BadReply(f"page {number + 1} is missing")
        return self._spool.read(*place)

    def data_info(self, kind: str) -> dict[str, Any]:
        """kind: "pdf" or "tiff", as PaddleX says."""
        return {"numPages": len(self._sizes), "pages": self._sizes, "type": kind}

    def reply(self, log_id: str, kind: str) -> Iterator[bytes]:
        """The whole reply, piece by piece. Raises BadReply before the first piece when a page is missing."""
        if None in self._places:
            raise BadReply(f"page {self._places.index(None) + 1} is missing")
        return self._pieces(log_id, kind)

    def _pieces(self, log_id: str, kind: str) -> Iterator[bytes]:
        yield b'{"logId":' + json.dumps(log_id).encode() + b',"result":{"layoutParsingResults":['
        for number in range(len(self._places)):
            yield (b"," if number else b"") + self.page(number)
        info = json.dumps(self.data_info(kind), separators=(",", ":")).encode()
        yield b'],"dataInfo":' + info + b'},"errorCode":0,"errorMsg":"Success"}'

    def size(self, log_id: str, kind: str) -> int:
        """Bytes of the whole reply."""
        ends = sum(
            len(piece)
            for piece in (b'{"logId":,"result":{"layoutParsingResults":[', b'],"dataInfo":},"errorCode":0,"errorMsg":"Success"}')
        )
        info = len(json.dumps(self.data_info(kind), separators=(",", ":")).encode())
        pages = sum(length for _, length in filter(None, self._places))
        return ends + len(json.dumps(log_id)) + info + pages + len(self._places) - 1

    def close(self) -> None:
        self._spool.close()


def unread_pages(pages: list[ReadPage | None]) -> list[int]:
    """Pages (from 1) that make the document a failure of the VLM: it read nothing in any page with blocks, or in a whole page.

    Empty where the document is sound: blank pages, or a page with no more than SPECKS blocks that are empty.
    """
    unread = [number for number, page in enumerate(pages, 1) if page is not None and page.is_unread]
    with_blocks = [page for page in pages if page is not None and page.blocks]
    if unread and len(unread) == len(with_blocks):
        return unread
    return [number for number in unread if (page := pages[number - 1]) is not None and page.blocks > SPECKS]
