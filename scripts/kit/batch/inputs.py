"""What is to be parsed: files, folders, globs, lists on stdin, URLs, as one list in a set order."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kit.batch.names import STATE
from kit.errors import ExitCode, KitError
from kit.redact import redact

STDIN = "-"
# In folders and globs. A file that is named is read whatever it is called: what it is, its content tells.
SUFFIXES = (".pdf", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_MAGIC = "*?["


@dataclass(frozen=True)
class Input:
    """One document. key: the same in every run from this machine. shown: for people, as it was given, but for secrets in a URL.

    path: of the file; None for a URL. folder: of the output, from that which was searched. stem: of the output.
    """

    key: str
    shown: str
    path: Path | None
    folder: tuple[str, ...]
    stem: str

    @property
    def is_url(self) -> bool:
        return self.path is None

    @property
    def source(self) -> str:
        """What the output says of its origin."""
        return self.shown if self.path is None else self.path.name


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def collect(arguments: Sequence[str], listed: Iterable[str], output: Path | None, written: Collection[Path] = ()) -> list[Input]:
    """Each document once, where it was first named. listed: lines of stdin, read where an argument is "-".

    output: a folder that is not searched where it lies in one that is; it may be the very folder that is searched, or hold it.
    written: folders that are never searched, those of pictures that earlier runs have made.
    Raises KitError (INPUT) for a named file that does not exist, and where there is nothing at all.
    """
    left_out = _LeftOut(_real(output) if output else None, frozenset(map(_real, written)))
    found: dict[str, Input] = {}
    for argument in arguments:
        for one in _expand(argument, listed, left_out):
            found.setdefault(one.key, one)
    if not found:
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        raise KitError("there is nothing to parse", f"in folders, files that end in {kinds} are taken", ExitCode.INPUT)
    return list(found.values())


@dataclass(frozen=True)
class _LeftOut:
    """What a search passes by. output, written: as in `collect`, without links."""

    output: Path | None
    written: frozenset[Path]

    def holds(self, folder: Path, root: Path) -> bool:
        """Whether it begins at this folder, which a search from `root` has come to. Both without links."""
        if folder == self.output:
            return folder not in (root, *root.parents)
        return folder in self.written or folder.name == STATE


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # resolve() raises at links that lead in a circle


def names_on(stdin: str) -> list[str]:
    """A name a line; or ended by NUL, as `find -print0` writes them, where there is one."""
    parts = stdin.split("\0") if "\0" in stdin else [line.rstrip("\r") for line in stdin.split("\n")]
    return [part for part in parts if part.strip()]


def _expand(argument: str, listed: Iterable[str], left_out: _LeftOut) -> Iterator[Input]:
    if argument == STDIN:
        for line in listed:
            # A line of a long list that leads nowhere is for the report, not the end of the run.
            is_folder = not is_url(line) and os.path.isdir(line)  # noqa: PTH112 (pathlib's raises where a name is too long)
            yield from _folder(Path(line), left_out) if is_folder else [_single(line)]
    elif is_url(argument) or os.path.lexists(argument):
        yield from _folder(Path(argument), left_out) if os.path.isdir(argument) else [_single(argument)]  # noqa: PTH112
    elif any(sign in argument for sign in _MAGIC):
        yield from _glob(argument, left_out)
    else:
        raise KitError(f"{argument}: no such file", "check the path; names with spaces need quotes", ExitCode.INPUT)


def _single(text: str) -> Input:
    if is_url(text):
        try:
            parts = urlsplit(text)
        except ValueError:  # no address: whoever fetches it says so
            return Input(text, redact(text), None, (), "document")
        stem = Path(unquote(parts.path)).stem or parts.hostname or "document"
        return Input(text, redact(text), None, (), stem)
    path = Path(text)
    return Input(os.path.abspath(text), text, path, (), path.stem)  # noqa: PTH100 (links are not followed)


def _folder(folder: Path, left_out: _LeftOut) -> Iterator[Input]:
    root = _real(folder)
    closed: list[Path] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: closed.append(Path(error.filename))):
        within = Path(place)
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and not left_out.holds(_real(within / name), root)
        )
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(SUFFIXES):
                yield _below(folder, within / name)
    for path in closed:  # that it cannot be read is for the report
        yield _single(str(path))


def _glob(pattern: str, left_out: _LeftOut) -> Iterator[Input]:
    parts = Path(pattern).parts
    fixed = Path(*[part for part in parts[: next(i for i, part in enumerate(parts) if any(s in part for s in _MAGIC))]])
    root = _real(fixed)
    for name in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 (pathlib's differs for absolute patterns)
        path = Path(name)
        inside = any(left_out.holds(parent, root) for parent in _real(path).parents if parent != root)
        if path.is_file() and not inside and (path.suffix.lower() in SUFFIXES or not parts[-1].endswith("*")):
            yield _below(fixed, path)


def _below(root: Path, path: Path) -> Input:
    relative = path.relative_to(root) if root != Path() else path
    return Input(os.path.abspath(path), str(path), path, relative.parent.parts, path.stem)  # noqa: PTH100
