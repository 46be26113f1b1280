"""Is there room for an export? Told before anything is written; all sizes are bytes."""

from __future__ import annotations

from pathlib import Path

from kit import console
from kit.errors import ExitCode, KitError
from kit.facts.disk import space
from kit.facts.docker import Engine

# Of the unpacked size, what a bundle takes: 0.563 measured on images of which 39 % could not be packed at all.
USUAL_RATIO = 0.65
KIT = 150 * 2**20  # kit.tar.gz and, while it is written, its wheels beside it: 73 and 72 MiB (docs/offline.md)


def check(folder: Path, told: Engine | None, *, saved: int, packed: int, models: int, kit: bool, kept: int) -> None:
    """Raise KitError (ENVIRONMENT) where `folder`, or that of the engine `told`, has too little room.

    saved: the images. packed: those of them that are carried, not packed yet. models: as they are. kit: kit.tar.gz is to be
    written. kept: what an earlier run has written.

    `docker save` lays the images out in the engine's folder before it gives them out; containerd's store gives them out as they
    lie there (both measured with 26.1).
    """
    least = max(int(packed * USUAL_RATIO) + models + KIT * kit - kept, 0)
    staging = space(Path(told.root)) if told and told.here and not told.containerd else None
    if staging and staging.free < saved:
        raise KitError(
            f"{staging.folder} has {console.size(staging.free)} free; "
            f"the engine needs {console.size(saved)} there to give the images out",
            "docker system df shows what takes the room",
            ExitCode.ENVIRONMENT,
        )
    place = space(folder)
    beside = saved if staging and _device(Path(staging.folder)) == _device(folder) else 0
    if place and place.free < least + beside:
        parts = [f"images of {console.size(packed)}, packed"]
        parts += [f"models {console.size(models)}"] * bool(models)
        parts += [f"the kit and its packages {console.size(KIT)}"] * kit
        parts += [f"{console.size(beside)} for the engine, which lays the images out on the same disk"] * bool(beside)
        raise KitError(
            f"{folder} has {console.size(place.free)} free; about {console.size(least + beside)} are needed ({'; '.join(parts)})",
            "free some space, or take a larger disk",
            ExitCode.ENVIRONMENT,
        )


def _device(folder: Path) -> int | None:
    """Of the folder, or of the nearest one above it that exists, as kit.facts.disk.space."""
    for place in (folder, *folder.parents):
        try:
            return place.stat().st_dev
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None
