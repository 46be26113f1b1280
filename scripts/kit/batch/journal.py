"""What a run has done, a line each, appended; and what a later run makes of it.

A run can be killed at any byte: a line that was not written to its end is dropped, and what it told is done anew.
Lines are written after what they tell of is on disk under its final name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from kit.client.ranges import Span

VERSION = 2
Record = dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """Pages that could not be read. kind, cause: as in kit.client.failures. log_id: as in the server's log."""

    span: Span
    kind: str
    cause: str
    log_id: str = ""


@dataclass
class Known:
    """What is known of one document.

    stamp: size and mtime in ns of the file. sha256: of its content. pages: of the document; 0 where it was not looked at.
    read: spans that lie in the store, with the size of their file in bytes. failed: kind and cause where the document
    as a whole has failed. lacks: what the service would not make of the pages, with kind and cause. done: its output is written,
    or there is none to write. files: of the output, paths below its folder. stale: those made of what the file held before.
    """

    name: str = ""
    stamp: tuple[int, int] = (0, 0)
    sha256: str = ""
    pages: int = 0
    type: str = ""
    asked: tuple[Span, ...] = ()
    read: dict[Span, int] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    failed: tuple[str, str] | None = None
    lacks: dict[str, tuple[str, str]] = field(default_factory=dict)
    done: bool = False
    files: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        return self.done and not self.lost and self.failed is None and not self.lacks


@dataclass
class Past:
    """All that a journal tells. settings: of the run; None where there is no journal. ended: the last run came to its end."""

    settings: Record | None = None
    known: dict[str, Known] = field(default_factory=dict)
    ended: bool = False


def past_of(records: Iterable[Record]) -> Past:
    """Raises KeyError, TypeError, ValueError where a line is not of this format."""
    past = Past()
    for record in records:
        past.ended = False
        match record["what"]:
            case "run":
                past.settings = record["settings"] | {"version": record["version"]}
            case "ended":
                past.ended = True
            case what:
                _apply(past.known.setdefault(record["key"], Known()), what, record)
    return past


def _apply(known: Known, what: str, record: Record) -> None:
    match what:
        case "named":
            known.name = record["name"]
        case "begun":  # anew, whatever was known
            known.stamp, known.sha256 = tuple(record["stamp"]), record["sha256"]
            known.pages, known.type = record["pages"], record["type"]
            known.asked = tuple((first, last) for first, last in record["asked"])
            known.read, known.lost, known.failed, known.lacks, known.done = {}, [], None, {}, False
        case "changed":  # the file holds something else: what is known of it counts no longer
            known.sha256, known.pages, known.asked = "", 0, ()
            known.read, known.lost, known.failed, known.lacks, known.done = {}, [], None, {}, False
            known.files, known.stale = (), (*known.stale, *known.files)
        case "touched":
            known.stamp = tuple(record["stamp"])
        case "read":
            known.read[tuple(record["span"])] = record["size"]  # type: ignore[index]
        case "gone":  # from the store, or damaged there
            known.read.pop(tuple(record["span"]), None)  # type: ignore[call-overload]
        case "lost":
            known.lost.append(Lost(tuple(record["span"]), record["kind"], record["cause"], record["log_id"]))
        case "failed":
            known.stamp = tuple(record["stamp"])
            known.failed, known.done, known.stale = (record["kind"], record["cause"]), True, ()
        case "done":
            known.lacks = {what: (kind, cause) for what, (kind, cause) in record.get("lacks", {}).items()}
            known.done, known.files, known.stale = True, tuple(record.get("files", ())), ()
        case "again":  # what has failed in an earlier run, or whose output is gone, is tried once more
            known.lost, known.failed, known.lacks, known.done = [], None, {}, False
        case _:
            raise ValueError(f"unknown record {what!r}")


class Journal:
    """The file. Opened with `open`; what was torn off at its end is cut off there."""

    def __init__(self, file: IO[bytes], past: Past) -> None:
        self._file = file
        self.past = past

    @staticmethod
    def open(path: Path) -> Journal:
        """Raises ValueError where it is not of this format, OSError."""
        file = path.open("a+b")
        try:
            file.seek(0)
            records, sound = _read(file)
            past = past_of(records)
            file.truncate(sound)
            file.seek(sound)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            file.close()
            raise ValueError(str(error)) from None
        return Journal(file, past)

    def add(self, what: str, **fields: Any) -> None:
        """Append a record and apply it to `past`. One write, so that it is there as a whole once the call is over."""
        record = {"what": what, **fields}
        self._file.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        if "key" in fields:
            _apply(self.past.known.setdefault(fields["key"], Known()), what, json.loads(json.dumps(record)))

    def close(self) -> None:
        self._file.close()


def _read(file: IO[bytes]) -> tuple[list[Record], int]:
    """The whole lines, and where they end. A line that is none, with lines behind it, is no torn end: ValueError."""
    records: list[Record] = []
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        try:
            records.append(json.loads(line))
        except ValueError:
            if file.read(1):
                raise ValueError(f"line {len(records) + 1} is damaged") from None
            break
        end += len(line)
    return records, end
