"""./kit export: the whole service into a folder, for a host without network."""

from __future__ import annotations

import argparse
import os
import re
from functools import partial
from pathlib import Path

from kit import console, envs
from kit.bundle import export, kit_archive, models, wanted
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts import docker
from kit.facts.disk import file_system
from kit.paths import ROOT
from kit.stack.compose import ComposeStack
from kit.verbs.arguments import Verbs

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
FAT32 = 4095 * 2**20  # bytes; its largest file has 4 GiB less a byte


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "export",
        help="the whole service into a folder, for a host without network",
        description="Writes a bundle: the images that the settings in force name, in parts that fit any disk, and the kit with "
        "all that it needs. ./kit verify, then ./kit load take it from there. Interrupted, run it again: complete parts stay.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="an empty folder, or one whose export was interrupted")
    parser.add_argument("--preview", action="store_true", help="the CPU preview's images instead of the GPU stack's")
    parser.add_argument(
        "--pull", action="store_true", help="ask the registry also for images that are here, for the newest of a tag"
    )
    parser.add_argument(
        "--part-size",
        type=size,
        default=FAT32,
        metavar="SIZE",
        help="such as 700MiB or 4.3GiB (default: 4095MiB, which FAT32 takes)",
    )
    parser.add_argument("--no-kit", action="store_true", help="leave the kit and its Python packages out")
    parser.add_argument(
        "--models",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="also the models that online images fetch: from the volume of this machine's service, or from FOLDER",
    )
    parser.add_argument(
        "--base", type=Path, action="append", default=[], metavar="BUNDLE", help="carry only the layers that this bundle lacks"
    )
    parser.set_defaults(run=run)


def size(text: str) -> int:
    """Bytes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?i?B?)", text.strip(), re.IGNORECASE)
    if not found or found[2].upper() not in UNITS:
        raise ValueError
    value = int(float(found[1]) * UNITS[found[2].upper()])
    if value < export.LEAST_PART:
        raise KitError(f"--part-size {text} is below 1 MiB", "the default, 4095MiB, fits every file system", ExitCode.USAGE)
    return value


size.__name__ = "size"


def run(arguments: argparse.Namespace) -> None:
    settings = Settings(ROOT, os.environ)
    found = docker.docker()
    if not found.usable or not docker.engine():
        raise KitError(
            f"there is no Docker engine to take the images from: {found.problem}", "./kit doctor", ExitCode.ENVIRONMENT
        )
    _check_part_size(arguments.folder, arguments.part_size)
    export.look(arguments.folder, arguments.base)  # before anything is pulled
    stack = ComposeStack(ROOT, settings, preview=arguments.preview)
    if arguments.models is not None:
        _check_models(stack)
    (ROOT / ".kit").mkdir(exist_ok=True)
    lock = envs.locked(ROOT / ".kit" / "export.lock", waiting=lambda: console.say("another ./kit export is under way; waiting"))
    with lock:
        with console.Board() as board:
            wanted.obtain(stack, anew=arguments.pull, report=board.note)
        if wanted.fetch_models_at_start(stack) and arguments.models is None:
            console.say(
                "these images fetch their models when they start, which a host without network cannot: "
                "./kit configure --offline takes images with the models inside, --models carries those of this machine",
                "yellow",
            )
        source = None if arguments.models is None else models.sources(Path(arguments.models) if arguments.models else None, stack)
        write_kit = None if arguments.no_kit else partial(_write_kit, settings)
        kit_state = "" if arguments.no_kit else kit_archive.state(ROOT, arguments.folder, settings)
        carried = wanted.wanted(stack, arguments.part_size, arguments.base, source, write_kit, kit_state)
        with console.Bytes() as progress:
            manifest = export.export(arguments.folder, carried, progress, console.say)
    for image in manifest.images:
        console.say(f"{image.reference}  {image.config[:19]}")
    console.say(f"✔ {len(manifest.files)} files, {console.size(manifest.size)}, in {arguments.folder}", "green")
    console.say(f"next: ./kit verify {arguments.folder}; what to do on the other host stands in its README.txt")


def _check_part_size(folder: Path, part_size: int) -> None:
    kind = file_system(folder)
    if kind in ("vfat", "msdos") and part_size > FAT32:
        raise KitError(f"{folder} is on a FAT32 file system, which takes no such parts", "--part-size 4095MiB", ExitCode.USAGE)


def _write_kit(settings: Settings, target: Path, arch: str) -> None:
    kit_archive.write(ROOT, target, settings, arch, console.say)


def _check_models(stack: ComposeStack) -> None:
    if stack.preview:
        raise KitError("--models: the preview's images have their models inside", "leave it out", ExitCode.USAGE)
    wanted.require_online(stack)
