"""Bundles as files: what is in one, and every way to damage one."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MANIFEST, SUMS, README = "manifest.json", "SHA256SUMS", "README.txt"
SIGNATURES = ("manifest.json.minisig", "manifest.json.sig")


def parts(folder: Path, stream: str = "images") -> list[Path]:
    """The parts of a stream, in order."""
    return sorted(folder.glob(f"{stream}.tar.zst.[0-9]*"))


def read_manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text())


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], None], *, mend: bool = True) -> None:
    """Change the manifest as a forger would. mend: also the checksums that stand beside it, and the list of them."""
    manifest = read_manifest(folder)
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    if mend:
        mend_sums(folder)


def mend_sums(folder: Path) -> None:
    """SHA256SUMS of what is there now."""
    names = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_file() and not path.name.startswith(".") and path.name not in (SUMS, *SIGNATURES)
    )
    (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def mend_file(folder: Path, name: str) -> None:
    """Give the manifest the true size and checksum of a file that was changed, and mend SHA256SUMS."""

    def edit(manifest: dict[str, Any]) -> None:
        entry = next(entry for entry in manifest["files"] if entry["name"] == name)
        entry |= {"size": (folder / name).stat().st_size, "sha256": sha256(folder / name)}

    edit_manifest(folder, edit)


def flip(path: Path, at: int) -> None:
    """One bit of the byte at `at` becomes another."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def flip_somewhere(path: Path, generator: random.Random) -> int:
    """The offset of the flipped byte."""
    at = generator.randrange(path.stat().st_size)
    flip(path, at)
    return at


def swap(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


def copy(folder: Path, target: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(folder, target))


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Inode, time of the last change in ns and size of each file that is in its place, thus complete."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size) for path in visible(folder)}


def visible(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
