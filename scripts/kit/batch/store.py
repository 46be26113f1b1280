"""Pages on disk between the service and the output: a file a range, pictures beside. Nothing of it stays in memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kit.batch.inputs import is_url
from kit.client.ranges import Span
from kit.client.results import Page, Picture
from kit.reply import contents


@dataclass
class Kept:
    """A page as it lies in the store. images: key in the Markdown → file in the folder of pictures, or a URL."""

    number: int
    text: str
    images: dict[str, str]
    pruned: dict[str, Any] = field(repr=False)
    width: int
    height: int

    @property
    def blocks(self) -> list[dict[str, Any]]:
        return self.pruned["parsing_res_list"]

    @property
    def has_text(self) -> bool:
        return any(contents({"prunedResult": self.pruned}))


class Store:
    """What lies below one folder; a document by its id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, identity: str) -> Path:
        """The folder of one document."""
        return self._folder / identity

    def put(self, identity: str, span: Span, pages: list[Page]) -> int:
        """Write the pages of a range; the size of its file. Raises OSError."""
        images = self.images(identity)
        (images if any(page.pictures for page in pages) else self.place(identity)).mkdir(parents=True, exist_ok=True)
        lines = []
        for page in pages:
            names: dict[str, str] = {}
            for picture in page.pictures:
                names[picture.key] = _file_of(page.number, picture, set(names.values()))
                if not picture.url:
                    write(images / names[picture.key], picture.data)
            kept = {"n": page.number, "text": page.markdown, "images": names, "pruned": page.pruned}
            lines.append(json.dumps({**kept, "width": page.width, "height": page.height}) + "\n")
        data = "".join(lines).encode()
        write(self._range(identity, span), data)
        return len(data)

    def has(self, identity: str, span: Span, size: int) -> bool:
        """Whether a range is there as it was written, with its pictures: a power cut may have taken back some of it."""
        try:
            if self._range(identity, span).stat().st_size != size:
                return False
            files = (file for page in self.pages(identity, [span]) for file in page.images.values() if not is_url(file))
            return all((self.images(identity) / file).stat().st_size for file in files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False

    def pages(self, identity: str, spans: Iterable[Span]) -> Iterator[Kept]:
        """The pages of these ranges, in their order, one at a time."""
        for span in sorted(spans):
            with self._range(identity, span).open("rb") as file:
                for line in file:
                    one = json.loads(line)
                    yield Kept(one["n"], one["text"], one["images"], one["pruned"], one["width"], one["height"])

    def images(self, identity: str) -> Path:
        return self.place(identity) / "images"

    def drop(self, identity: str) -> None:
        """Forget a document."""
        shutil.rmtree(self.place(identity), ignore_errors=True)

    def _range(self, identity: str, span: Span) -> Path:
        return self.place(identity) / f"pages-{span[0]:07d}-{span[1]:07d}.jsonl"


def identity(key: str) -> str:
    """The name of a document's folder in the store."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:20]


def write(path: Path, data: bytes) -> None:
    """Aside, then renamed: a file is whole or not there."""
    aside = path.with_name(path.name + ".partial")
    aside.write_bytes(data)
    aside.replace(path)


def link(source: Path, target: Path) -> None:
    """The same file at a second place; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        shutil.copyfile(source, target)


def restructure_body(path: Path, pages: Iterable[Kept], images: Path | None, fields: dict[str, Any]) -> int:
    """Write a request of /restructure-pages, page by page; how many there are. images: the folder, where pictures are needed."""
    count = 0
    with path.open("wb") as file:
        file.write(json.dumps(fields)[:-1].encode() + (b", " if fields else b"") + b'"pages":[')
        for page in pages:
            pictures = {key: _sent(images, name) for key, name in page.images.items()} if images else None
            one = {"prunedResult": page.pruned, "markdownImages": pictures}
            file.write((b"," if count else b"") + json.dumps(one).encode())
            count += 1
        file.write(b"]}")
    return count


def _sent(images: Path, name: str) -> str:
    return name if is_url(name) else base64.b64encode((images / name).read_bytes()).decode()


def _file_of(number: int, picture: Picture, taken: set[str]) -> str:
    """A file name for a picture of a page: never a folder, never hidden, nothing odd, and no other picture's."""
    if picture.url:
        return picture.url
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", PurePosixPath(picture.key).name).lstrip(".")[-100:] or "picture"
    name, other = f"p{number:04d}_{plain}", 1
    while name.casefold() in {one.casefold() for one in taken}:
        other += 1
        name = f"p{number:04d}_{other}_{plain}"
    return name
