"""How much room is where."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Space:
    """free, total: bytes of the file system on which `folder` lies."""

    folder: str
    free: int
    total: int


def space(folder: Path) -> Space | None:
    """Of the folder, or of the nearest one above it that exists; None where even that cannot be asked."""
    for place in (folder, *folder.parents):
        try:
            usage = shutil.disk_usage(place)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return Space(str(folder), usage.free, usage.total)
    return None


def file_system(folder: Path) -> str:
    """Its kind, as mount names it: ext4, vfat, …; "" where it is not known."""
    folder = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
