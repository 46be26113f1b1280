"""A stream of bytes as files of a fixed size: written so that an interruption costs one part, read without joining them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from kit.bundle.manifest import File, Frame, part_name
from kit.errors import ExitCode, KitError

CHUNK = 2**18  # bytes


class Changed(Exception):
    """What is being written differs from what an earlier, interrupted run wrote at the same place."""


class PartWriter:
    """Writes parts of `size` bytes to `folder`, each aside, then in place with its hash known.

    kept: complete parts of an earlier run, in order. What falls into them is compared, not written.
    finished: called with each new part, in place and on disk. Raises KitError (ENVIRONMENT) when the disk is full, Changed.
    """

    def __init__(self, folder: Path, stream: str, size: int, kept: Sequence[File], finished: Callable[[File], None]) -> None:
        self.folder, self.stream, self.part_size, self._finished = folder, stream, size, finished
        self.position = 0
        self._kept = list(kept)
        self._kept_size = sum(part.size for part in kept)
        self._number = len(kept)
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._filled = 0

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file:
            with contextlib.suppress(OSError):  # what is told is what came first
                self._file.close()
                self._aside.unlink(missing_ok=True)

    def skip(self, size: int) -> None:
        """Go over bytes that lie in kept parts and are known to be right."""
        if self.position + size > self._kept_size:
            raise Changed
        self.position += size

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        if self.position < self._kept_size:
            same = view[: self._kept_size - self.position]
            self._compare(same)
            view = view[len(same) :]
        while view:
            self._open()
            fitting = view[: self.part_size - self._filled]
            try:
                self._file.write(fitting)  # type: ignore[union-attr]
            except OSError as error:
                raise write_error(self.folder, error) from error
            self._hash.update(fitting)
            self._filled += len(fitting)
            self.position += len(fitting)
            view = view[len(fitting) :]
            if self._filled == self.part_size:
                self._complete()

    def close(self) -> None:
        """Complete the last part."""
        if self.position < self._kept_size:
            raise Changed
        if self._filled:
            self._complete()

    @property
    def _aside(self) -> Path:
        return self.folder / f".{part_name(self.stream, self._number)}.partial"

    def _open(self) -> None:
        if self._file is None:
            try:
                self._file = self._aside.open("wb", buffering=0)
            except OSError as error:
                raise write_error(self.folder, error) from error
            self._hash = hashlib.sha256()
            self._filled = 0

    def _complete(self) -> None:
        assert self._file
        name = part_name(self.stream, self._number)
        try:
            os.fsync(self._file.fileno())
            self._file.close()
            self._aside.replace(self.folder / name)
        except OSError as error:
            raise write_error(self.folder, error) from error
        self._file = None
        part = File(name, self._filled, self._hash.hexdigest())
        self._number += 1
        self._filled = 0
        self._finished(part)

    def _compare(self, data: memoryview) -> None:
        at = 0
        for there in ranged(self.folder, self._kept, self.position, len(data)):
            if data[at : at + len(there)] != there:
                raise Changed
            at += len(there)
        self.position += len(data)


def ranged(folder: Path, parts: Sequence[File], offset: int, size: int) -> Iterator[bytes]:
    """`size` bytes from `offset` of the stream that `parts` are, in pieces of at most CHUNK. Raises KitError (INPUT)."""
    start = 0
    for part in parts:
        end = start + part.size
        if size and offset < end:
            try:
                with (folder / part.name).open("rb", buffering=0) as file:
                    file.seek(offset - start)
                    while size and offset < end:
                        piece = file.read(min(CHUNK, size, end - offset))
                        if not piece:
                            raise broken(folder, f"{part.name} is cut")
                        yield piece
                        offset += len(piece)
                        size -= len(piece)
            except OSError as error:
                raise broken(folder, f"{part.name}: {error.strerror}") from error
        start = end
    if size:
        raise broken(folder, "a part is missing")


def packed(folder: Path, parts: Sequence[File], frame: Frame) -> Iterator[bytes]:
    """The packed bytes of a frame. Raises KitError (INPUT), after the last of them, when they are not what they were."""
    seen = hashlib.sha256()
    for piece in ranged(folder, parts, frame.offset, frame.size):
        seen.update(piece)
        yield piece
    if seen.hexdigest() != frame.sha256:
        raise broken(folder, f"{culprit(folder, parts, frame)} was changed or damaged")


def culprit(folder: Path, parts: Sequence[File], frame: Frame) -> str:
    """Names of the damaged parts of those in which a frame lies."""
    start, damaged, over = 0, [], []
    for part in parts:
        end = start + part.size
        if start < frame.offset + frame.size and frame.offset < end:
            over.append(part.name)
            if not _is_whole(folder, part):
                damaged.append(part.name)
        start = end
    return ", ".join(damaged or over)


def _is_whole(folder: Path, part: File) -> bool:
    try:
        return hash_of(folder / part.name) == part.sha256
    except OSError:
        return False


def hash_of(path: Path, seen: Callable[[int], None] = lambda size: None) -> str:
    """SHA-256 of a file, hex. seen: called with the size of each piece."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            seen(len(piece))
    return digest.hexdigest()


def broken(folder: Path, what: str) -> KitError:
    return KitError(
        f"{folder}: {what}", f"./kit verify {folder} names all that differs; copy those files once more", ExitCode.INPUT
    )


def write_error(folder: Path, error: OSError) -> KitError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return KitError(
            f"the disk of {folder} is full", "free some space and run it again: complete parts are kept", ExitCode.ENVIRONMENT
        )
    if error.errno == errno.EFBIG:
        return KitError(
            f"the file system of {folder} takes no file of this size", "--part-size 4095MiB fits FAT32", ExitCode.ENVIRONMENT
        )
    reason = error.strerror or str(error)
    return KitError(f"cannot write to {folder}: {reason}", "own the folder, or take another", ExitCode.ENVIRONMENT)
