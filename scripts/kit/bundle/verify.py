"""./kit verify: is each file of a bundle what it was when it was written? Needs no Docker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit.bundle import manifest as manifests
from kit.bundle.manifest import File, Manifest
from kit.bundle.parts import hash_of
from kit.bundle.signature import SIGNATURES


@dataclass(frozen=True)
class Fault:
    """A file that is not as it was, and how."""

    name: str
    what: str


def verify(folder: Path, manifest: Manifest, seen: Callable[[int], None]) -> list[Fault]:
    """Everything that differs; empty for a whole bundle. Reads each byte once. seen: called with the size of each piece, bytes.

    Hidden files and folders are none of the bundle's: sticks and archives bring their own.
    """
    faults = checksums(folder, manifest)
    hashes: dict[str, str] = {}
    for file in manifest.files:
        fault = _compared(folder, file, hashes, seen)
        if fault:
            faults.append(fault)
    by_hash = {file.sha256: file.name for file in manifest.files}
    for number, fault in enumerate(faults):
        other = by_hash.get(hashes.get(fault.name, ""))
        if other and other != fault.name:
            faults[number] = Fault(fault.name, f"holds what {other} should hold")
    known = {file.name for file in manifest.files} | {manifests.NAME, manifests.SUMS, *SIGNATURES}
    try:
        for entry in sorted(folder.iterdir()):
            if entry.name not in known and not entry.name.startswith(".") and not entry.is_dir():
                faults.append(Fault(entry.name, "is not part of this bundle"))
    except OSError as error:  # such as a stick that was pulled meanwhile
        faults.append(Fault(str(folder), f"cannot be read: {error.strerror}"))
    return faults


def _compared(folder: Path, file: File, hashes: dict[str, str], seen: Callable[[int], None]) -> Fault | None:
    path = folder / file.name
    try:
        if path.is_symlink() or not path.is_file():
            return Fault(file.name, "is missing" if not path.exists() else "is no file")
        size = path.stat().st_size
        hashes[file.name] = hash_of(path, seen)
    except OSError as error:
        return Fault(file.name, f"cannot be read: {error.strerror}")
    if hashes[file.name] == file.sha256:
        return None
    return Fault(file.name, f"has {size:,} bytes of {file.size:,}" if size != file.size else "was changed or damaged")


def checksums(folder: Path, manifest: Manifest) -> list[Fault]:
    """Where SHA256SUMS and manifest.json, which vouch for each other, differ."""
    try:
        text = (folder / manifests.SUMS).read_text(encoding="utf-8")
        written = hash_of(folder / manifests.NAME)
    except FileNotFoundError:
        return [Fault(manifests.SUMS, "is missing")]
    except (OSError, UnicodeDecodeError) as error:
        return [Fault(manifests.SUMS, f"cannot be read: {error}")]
    listed = dict(reversed(line.split("  ", 1)) for line in text.splitlines() if "  " in line)
    if listed.get(manifests.NAME) != written:
        return [Fault(manifests.NAME, "was changed or damaged")]
    if listed != {file.name: file.sha256 for file in manifest.files} | {manifests.NAME: written}:
        return [Fault(manifests.SUMS, "was changed or damaged")]
    return []
