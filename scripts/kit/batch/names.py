"""Names of outputs (pure): they stay in the folder, no two collide on any file system, and no order of work changes them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

STATE = ".kit-parse"  # the journal and all that is on its way
REPORT = "report.json"
SUFFIXES = (".md", ".json", ".jsonl", ".docx", ".html")
IMAGES = "_images"

# Bytes of UTF-8: 255 is the limit of most file systems; what is put behind a name has to fit too.
_LONGEST = 150
_UNFIT = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]')
# Windows keeps these for devices, with any suffix.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe(component: str) -> str:
    """A file or folder name from any text: never empty, hidden, a folder above, an option of a program, or a device."""
    name = unicodedata.normalize("NFC", _UNFIT.sub("_", component)).strip(" .")
    if name.startswith(("-", "~")) or _DEVICES.fullmatch(name):
        name = "_" + name
    while len(name.encode()) > _LONGEST:
        name = name[:-1]
    return name.rstrip(" .") or "document"


class Names:
    """Gives each document a name of its own: a path below the output folder, without suffix."""

    def __init__(self) -> None:
        self._files = {_folded(REPORT), _folded(STATE)}  # and folders of pictures: what belongs to one document
        self._folders: set[str] = set()  # that documents of several names lie in

    def keep(self, name: str) -> None:
        """A name that was given before."""
        self._files |= _claims(PurePosixPath(name))
        self._folders |= _parents(PurePosixPath(name))

    def give(self, folder: Iterable[str], stem: str) -> str:
        """For a document that is called `stem` and lies in `folder`: that name, or the first of name-2, name-3, … that is free.

        folder: components, below that which was searched.
        """
        place = PurePosixPath()
        for component in map(safe, folder):
            place /= _first(component, lambda one, within=place: _folded(within / one) not in self._files)  # type: ignore[misc]
        name = place / _first(safe(stem), lambda one: not _claims(place / one) & (self._files | self._folders))
        self.keep(str(name))
        return str(name)


def _first(wish: str, is_free) -> str:  # type: ignore[no-untyped-def]
    number, name = 1, wish
    while not is_free(name):
        number += 1
        name = f"{wish}-{number}"
    return name


def _claims(name: PurePosixPath) -> set[str]:
    """Everything that a document may write, whatever the formats of this run: those of the next may be others."""
    return {_folded(name.with_name(name.name + end)) for end in (*SUFFIXES, IMAGES)}


def _parents(name: PurePosixPath) -> set[str]:
    return {_folded(parent) for parent in name.parents if parent.name}


def _folded(path: PurePosixPath | str) -> str:
    """As the least exact file systems see it: neither case nor the way in which accents are written counts."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKD", str(path)).casefold())
