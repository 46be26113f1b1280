"""Edits that mend a file and leave the rest of it as it is: comments, quotes, order."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from kit.errors import ExitCode, KitError
from kit.lint.findings import Edit, Place
from kit.lint.tree import Mapping, Scalar


def put(scalar: Scalar, text: str) -> tuple[Edit, ...]:
    """A value replaced, quotes and all; nothing where a variable has a part in it."""
    if "$" in scalar.source or scalar.place.start == scalar.place.end:
        return ()
    return (Edit(scalar.place.file, scalar.place.start, scalar.place.end, text),)


def put_part(scalar: Scalar, old: str, new: str) -> tuple[Edit, ...]:
    """A part of a value replaced; nothing where the part is not written in this very file."""
    place = scalar.where(old)
    if place.file != scalar.place.file or scalar.source.count(old) != 1 or place.end - place.start != len(old):
        return ()
    return (Edit(place.file, place.start, place.end, new),)


def drop(text: str, mapping: Mapping, key: str) -> tuple[Edit, ...]:
    """A key taken out with its one-line value; nothing in a flow mapping, where commas would be left."""
    at, value = mapping.keys[key], mapping.items[key]
    if mapping.flow or not isinstance(value, Scalar) or "\n" in value.source:
        return ()
    start = text.rfind("\n", 0, at.start) + 1
    if text[start : at.start].strip():  # the first key of a list's item shares its line with the dash
        return ()
    return (Edit(at.file, start, _line_end(text, at.end), ""),)


def add(text: str, mapping: Mapping, lines: str) -> tuple[Edit, ...]:
    """`key: value` lines, written with two spaces a level, put after the mapping's first one-line value."""
    file = mapping.place.file
    if mapping.flow:
        if "\n" in lines:
            return ()
        comma = ", " if mapping.items else ""
        return (Edit(file, mapping.place.start + 1, mapping.place.start + 1, lines + comma),)
    for key, value in mapping.items.items():
        at = mapping.keys[key]
        inside = at.file == file and mapping.place.start <= at.start < mapping.place.end
        if inside and isinstance(value, Scalar) and "\n" not in value.source and value.place.line == at.line:
            return after(text, at, lines)
    for at in mapping.keys.values():
        if at.file == file and at.start == mapping.place.start:
            start = text.rfind("\n", 0, at.start) + 1
            indent = text[start : at.start]
            return () if indent.strip() else (Edit(file, start, start, _indented(lines, indent) + "\n"),)
    return ()


def after(text: str, key: Place, lines: str) -> tuple[Edit, ...]:
    """Lines put below the line of a key, at its depth."""
    start = text.rfind("\n", 0, key.start) + 1
    indent = text[start : key.start]
    if indent.strip():
        return ()
    end = _line_end(text, key.end)
    newline = "" if text[end - 1 : end] == "\n" else "\n"
    return (Edit(key.file, end, end, newline + _indented(lines, indent) + "\n"),)


def append(file: Path, text: str, lines: str) -> tuple[Edit, ...]:
    """Lines at the end of a file."""
    newline = "" if not text or text.endswith("\n") else "\n"
    return (Edit(file, len(text), len(text), newline + lines + "\n"),)


def _indented(lines: str, indent: str) -> str:
    return "\n".join(indent + line for line in lines.splitlines())


def _line_end(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end + 1


def apply_all(mends: Iterable[tuple[Edit, ...]]) -> dict[Path, tuple[str, str]]:
    """Write mends, each file at once or not at all; (before, after) of each changed file.

    A mend is made whole or left: one that touches what an earlier one touches waits for the next round.
    Raises KitError (INPUT) where a file cannot be written.
    """
    by_file: dict[Path, list[Edit]] = {}
    for edits in mends:
        if all(_free(edit, by_file.get(edit.file, [])) for edit in edits):
            for edit in edits:
                by_file.setdefault(edit.file, []).append(edit)
    changed = {}
    for file, wanted in by_file.items():
        try:
            raw = file.read_bytes()
            before = raw.decode("utf-8-sig")
            after_ = before
            for edit in sorted(wanted, key=lambda edit: -edit.start):
                after_ = after_[: edit.start] + edit.text + after_[edit.end :]
            if "\r\n" in before:
                after_ = after_.replace("\r\n", "\n").replace("\n", "\r\n")
            mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
            _write(file, mark + after_.encode())
        except OSError as error:
            raise KitError(f"{file}: {error.strerror or error}", "nothing of it was changed", ExitCode.INPUT) from None
        changed[file] = (before, after_)
    return changed


def _free(edit: Edit, others: list[Edit]) -> bool:
    return all(edit.end <= other.start or edit.start >= other.end for other in others)


def _write(file: Path, data: bytes) -> None:
    target = file.resolve()  # a link stays a link
    handle, aside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        Path(aside).chmod(target.stat().st_mode & 0o7777)
        Path(aside).replace(target)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
