"""How much room is where."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path


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
