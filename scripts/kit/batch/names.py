"""Names of outputs: they stay in the folder, no two collide on any file system, none is that of a file which was there
before, and no order of work changes them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

STATE = ".kit-parse"  # the journal and all that is on its way
REPORT = "report.json"
SUFFIXES = (".md", ".json", ".jsonl", ".docx", ".html")
IMAGES = "_images"

# Bytes of UTF-8: 255 is the limit of most file systems; what is put behind a name has to fit too.
_LONGEST = 150
_UNFIT = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]')
# Windows keeps these for devices, with any suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\..*)?", re.IGNORECASE)


def safe(component: str) -> str:
    """A file or folder name from any text: never empty, hidden, a folder above, an option of a program, or a device."""
    name = unicodedata.normalize("NFC", _UNFIT.sub("_", component)).strip(" .")
    if name.startswith(("-", "~")) or _DEVICES.fullmatch(name):
        name = "_" + name
    while len(name.encode()) > _LONGEST:
        name = name[:-1]
    return name.rstrip(" .") or "document"


class Names:
    """Gives each document a name of its own: a path below the output folder, without suffix.

    folder: of the output. What lies there and was not told to `keep` is somebody else's: its name is not given.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._files = {_folded(REPORT), _folded(STATE)}  # and folders of pictures: what belongs to one document
        self._folders: set[str] = set()  # that documents of several names lie in
        self._next: dict[tuple[PurePosixPath, bool], int] = {}  # numbers below are taken: 10,000 documents may have one name

    def keep(self, name: str) -> None:
        """A name that was given before."""
        self._files.update(_claims(PurePosixPath(name)))
        self._folders.update(_parents(PurePosixPath(name)))

    def give(self, folder: Iterable[str], stem: str) -> str:
        """For a document that is called `stem` and lies in `folder`: that name, or the first of name-2, name-3, … that is free.

        folder: components, below that which was searched.
        """
        place = PurePosixPath()
        for component in map(safe, folder):
            place = self._first(place / component, is_folder=True)
        name = self._first(place / safe(stem), is_folder=False)
        self.keep(str(name))
        return str(name)

    def _first(self, wish: PurePosixPath, *, is_folder: bool) -> PurePosixPath:
        is_free = self._is_free_folder if is_folder else self._is_free
        number = self._next.get((wish, is_folder), 1)
        while not is_free(name := wish if number == 1 else wish.with_name(f"{wish.name}-{number}")):
            number += 1
        self._next[wish, is_folder] = number
        return name

    def _is_free_folder(self, place: PurePosixPath) -> bool:
        there = self._folder / place if self._folder else None
        return _folded(place) not in self._files and (there is None or there.is_dir() or not os.path.lexists(there))

    def _is_free(self, name: PurePosixPath) -> bool:
        claims = _claims(name)
        if not (self._files.isdisjoint(claims) and self._folders.isdisjoint(claims)):
            return False
        return self._folder is None or not any(os.path.lexists(self._folder / claim) for claim in claims.values())


def _claims(name: PurePosixPath) -> dict[str, PurePosixPath]:
    """All that a document may write, folded → as it is, whatever the formats of this run: those of the next may be others."""
    paths = (name.with_name(name.name + end) for end in (*SUFFIXES, IMAGES))
    return {_folded(path): path for path in paths}


def _parents(name: PurePosixPath) -> set[str]:
    return {_folded(parent) for parent in name.parents if parent.name}


def _folded(path: PurePosixPath | str) -> str:
    """As the least exact file systems see it: neither case nor the way in which accents are written counts."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", str(path)).casefold())
