"""Pages as md, json, jsonl and html, written as they pass by: no document is in memory as a whole."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from kit.batch import html
from kit.batch.inputs import is_url
from kit.batch.journal import Lost
from kit.batch.names import IMAGES
from kit.batch.store import Kept
from kit.batch.wish import HTML, JSON, JSONL, MD


@dataclass(frozen=True)
class Head:
    """Of a document. name: of its output, without folder. source: where it comes from. type: "pdf", "tiff", "image".

    elsewhere: URLs of pictures that the service keeps.
    """

    name: str
    source: str
    type: str
    lost: Sequence[Lost] = ()
    elsewhere: Collection[str] = ()


def shown(page: Kept, name: str) -> tuple[str, dict[str, str]]:
    """A page's Markdown with its pictures where they are written, and these: key → path beside the Markdown, or URL."""
    places = {key: file if is_url(file) else f"{name}{IMAGES}/{file}" for key, file in page.images.items()}
    if not places:
        return page.text, {}
    # One pass, longest first: a key may be the beginning of another, or stand in what has just been put in.
    keys = re.compile("|".join(re.escape(key) for key in sorted(places, key=len, reverse=True)))
    return keys.sub(lambda match: _url(places[match[0]]), page.text), places


def _url(place: str) -> str:
    return place if is_url(place) else quote(place)


def write(folder: Path, head: Head, pages: Iterator[Kept], formats: Sequence[str]) -> list[str]:
    """Write NAME-less files, one a format, called by it, into `folder`; the pictures that are shown. Raises OSError."""
    pictures: list[str] = []
    with ExitStack() as stack:
        writers = [_WRITERS[name](stack.enter_context(_open(folder / name)), head) for name in formats if name in _WRITERS]
        for page in pages:
            text, places = shown(page, head.name)
            pictures += [file for key, file in page.images.items() if places[key] != file]
            for writer in writers:
                writer.page(page, text, places)
        for writer in writers:
            writer.end()
    return pictures


def _open(path: Path) -> IO[str]:
    # What a service sends may hold lone surrogates, which no UTF-8 has.
    return path.open("w", encoding="utf-8", errors="replace", newline="\n")


class _Writer:
    def __init__(self, file: IO[str], head: Head) -> None:
        self.file, self.head, self.count = file, head, 0
        self.lost = [(number, one.cause) for one in head.lost for number in range(one.span[0], one.span[1] + 1)]
        self.lost.sort(reverse=True)
        self.begin()

    def begin(self) -> None: ...

    def page(self, page: Kept, text: str, places: dict[str, str]) -> None:
        while self.lost and self.lost[-1][0] < page.number:
            self._lost(*self.lost.pop())
        self.read(page, text, places)
        self.count += 1

    def end(self) -> None:
        while self.lost:
            self._lost(*self.lost.pop())
        self.finish()

    def _lost(self, number: int, cause: str) -> None:
        self.unread(number, cause)
        self.count += 1

    def read(self, page: Kept, text: str, places: dict[str, str]) -> None: ...

    def unread(self, number: int, cause: str) -> None: ...

    def finish(self) -> None: ...


class _Markdown(_Writer):
    def read(self, page: Kept, text: str, places: dict[str, str]) -> None:
        self.file.write(("\n\n" if self.count else "") + text)

    def unread(self, number: int, cause: str) -> None:
        # Whoever reads on must not take the document for whole; a comment shows nowhere else.
        inside = re.sub("-(?=-)", "- ", cause)  # two of them would begin the comment's end
        self.file.write(("\n\n" if self.count else "") + f"<!-- page {number} was not read: {inside} -->")

    def finish(self) -> None:
        self.file.write("\n")


class _Json(_Writer):
    """The shape of the service's own `result`, and of each page its number."""

    def begin(self) -> None:
        self.sizes: list[dict[str, int]] = []
        self.file.write(f'{{"source": {_json(self.head.source)},\n "layoutParsingResults": [')

    def _put(self, one: dict[str, Any], width: int = 0, height: int = 0) -> None:
        self.file.write(("," if self.count else "") + "\n  " + _json(one))
        self.sizes.append({"width": width, "height": height})

    def read(self, page: Kept, text: str, places: dict[str, str]) -> None:
        one = {"page": page.number, "prunedResult": page.pruned, "markdown": {"text": text, "images": places}}
        self._put(one, page.width, page.height)

    def unread(self, number: int, cause: str) -> None:
        nothing = {"prunedResult": {"parsing_res_list": []}, "markdown": {"text": "", "images": {}}}
        self._put({"page": number, "error": cause, **nothing})

    def finish(self) -> None:
        if self.head.type == "image":
            info: dict[str, Any] = {**self.sizes[0], "type": "image"}
        else:
            info = {"numPages": len(self.sizes), "pages": self.sizes, "type": self.head.type}
        self.file.write(f'\n ],\n "dataInfo": {_json(info)}}}\n')


class _JsonLines(_Writer):
    """A line a page, with what programs mostly want: text and blocks."""

    def read(self, page: Kept, text: str, places: dict[str, str]) -> None:
        blocks = [
            {
                "label": block.get("block_label"),
                "box": block.get("block_bbox"),
                "content": block.get("block_content"),
                "order": block.get("block_order"),
            }
            for block in page.blocks
        ]
        size = {"width": page.width, "height": page.height}
        one = {"source": self.head.source, "page": page.number, **size, "markdown": text, "images": list(places.values())}
        self.file.write(_json({**one, "blocks": blocks}) + "\n")

    def unread(self, number: int, cause: str) -> None:
        self.file.write(_json({"source": self.head.source, "page": number, "error": cause}) + "\n")


class _Html(_Writer):
    def begin(self) -> None:
        self.file.write(html.head(self.head.name, self.head.elsewhere))

    def read(self, page: Kept, text: str, places: dict[str, str]) -> None:
        self.file.write(html.page(page.number, text, set(map(_url, places.values()))))

    def unread(self, number: int, cause: str) -> None:
        self.file.write(html.unread(number, cause))

    def finish(self) -> None:
        self.file.write(html.END)


_WRITERS: dict[str, type[_Writer]] = {MD: _Markdown, JSON: _Json, JSONL: _JsonLines, HTML: _Html}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
