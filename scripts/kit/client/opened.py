"""A document that is about to be sent: looked at and cut by a child process, so that no file can harm or fill this one."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from kit.client.failures import Unusable
from kit.client.ranges import PER_RANGE, Span
from kit.documents import IMAGE
from kit.gateway.causes import Refusal
from kit.gateway.split import Kind
from kit.gateway.splitters import Document, Splitters

MOST_PAGES = 100_000  # of a TIFF, whose pages have to be counted one by one
# In the names of parts: a child whose parent was killed may still write its last one into the folder of the next run.
_PROCESS = secrets.token_hex(4)


@dataclass
class Opened:
    """A readable document. name: for people. path: of the file. folder: for the parts that it is cut into."""

    name: str
    path: Path
    kind: Kind
    folder: Path
    _document: Document = field(repr=False)

    @property
    def pages(self) -> int:
        return self.kind.pages

    @property
    def all(self) -> Span:
        return (1, self.pages)

    @property
    def per_range(self) -> int:
        """Pages of one request, fewer where they are large; no service takes a TIFF of several, so each of its pages goes alone."""
        return 1 if self.kind.is_tiff else min(PER_RANGE, self.kind.at_once)

    @property
    def _parts(self) -> str:
        return f"part-{_PROCESS}-{self._document.token}"

    async def part(self, span: Span) -> Part:
        """Pages of it as a document of their own; all of them are the very file. Raises Unusable, OSError."""
        if span == self.all and not self.kind.is_tiff:
            return Part(self.path, self.kind.file_type, False)
        file = self.folder / f"{self._parts}-{span[0]}-{span[1]}"
        try:
            file_type = await self._document.cut_to(span[0] - 1, span[1] - 1, str(file))
        except Refusal as refusal:
            file.unlink(missing_ok=True)
            raise Unusable(self.name, refusal.cause.name, refusal.sentence) from None
        return Part(file, file_type, True)

    async def close(self) -> None:
        await self._document.close()
        for left in self.folder.glob(f"{self._parts}-*"):  # cut for someone who was cancelled meanwhile
            left.unlink()


@dataclass(frozen=True)
class Part:
    """A file to send. is_cut: it is to be removed afterwards."""

    path: Path
    file_type: int
    is_cut: bool

    def remove(self) -> None:
        if self.is_cut:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class _File:
    path: Path

    def source(self) -> str:
        return str(self.path)


class Reader:
    """The children that look at documents and cut them. folder: for parts; a temporary one where none is given."""

    def __init__(self, folder: Path | None = None, children: int = 2) -> None:
        self._splitters = Splitters(children)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._folder = folder

    async def start(self) -> None:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="kit-client-")
            self._folder = Path(self._temporary.name)
        # A child is started when the first document comes to it.

    async def stop(self) -> None:
        await self._splitters.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def open(self, path: Path, name: str = "") -> Opened:
        """Raises Unusable with the cause: missing, empty, encrypted, corrupt, unreadable, too-many-pixels."""
        assert self._folder is not None, "start comes first"
        name = name or str(path)
        if not _size(path, name):
            raise Unusable(name, "empty", "the file is empty")
        document = None
        try:
            document = await self._splitters.open(_File(path.absolute()), MOST_PAGES)
            # PaddleX's decoder takes the first half of a picture for the whole, and says nothing.
            if document.kind.file_type == IMAGE and document.kind.pages == 1 and (why := await document.why_not()):
                raise Refusal("corrupt", why)
        except Refusal as refusal:
            if document is not None:
                await document.close()
            raise Unusable(name, refusal.cause.name, refusal.sentence, _HINTS.get(refusal.cause.name, "")) from None
        return Opened(name, path, document.kind, self._folder, document)


_HINTS = {
    "encrypted": "qpdf --decrypt --password=… IN OUT makes a copy without a password",
    "unreadable": "PDF, PNG, JPEG, TIFF, BMP and WebP are read",
    "too-many-pixels": "scale it down, or cut it in parts",
    "corrupt": "qpdf IN OUT can mend some PDFs; else copy it again from its source",
}


def _size(path: Path, name: str) -> int:
    """Raises Unusable when it is no file that can be read."""
    try:
        if not path.is_file():
            if path.is_dir():
                os.scandir(path).close()  # one that may not be read says so
            why = "is a folder" if path.is_dir() else "is no file" if path.exists() else "no such file"
            raise Unusable(name, "missing", why, "check the path; names with spaces need quotes")
        with path.open("rb") as file:
            return file.seek(0, 2)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        why = getattr(error, "strerror", None) or str(error)
        raise Unusable(name, "missing", why, "check the path and the file's permissions") from None
