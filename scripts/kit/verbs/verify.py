"""./kit verify: is a bundle whole?"""

from __future__ import annotations

import argparse
from pathlib import Path

from kit import console
from kit.bundle import manifest as manifests
from kit.bundle import signature
from kit.bundle.verify import verify
from kit.errors import ExitCode, KitError
from kit.verbs.arguments import Verbs


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "verify",
        help="is a bundle whole? reads every byte of it, needs no Docker",
        description="Compares each file of a bundle with its manifest and names what is missing, cut, changed, swapped or does "
        "not belong there. Exit code 3 where anything differs.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what ./kit export wrote")
    parser.add_argument("--key", type=Path, metavar="FILE", help="public key, of minisign or ssh, that must have signed it")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    manifest = manifests.read(arguments.folder)
    signed = signature.check(arguments.folder, arguments.key)
    with console.Bytes() as progress:
        progress.start("verifying", manifest.size)
        faults = verify(arguments.folder, manifest, progress.advance)
    for fault in faults:
        # Whoever gave the files their names may have meant a terminal, or another character set.
        name = fault.name if fault.name.isprintable() else ascii(fault.name)[1:-1]
        console.data(f"{name}  {fault.what}")
    if faults:
        raise KitError(
            f"{arguments.folder}: {len(faults)} of {len(manifest.files) + 2} files are not as they were written",
            "copy the files named above once more, or remove what does not belong there",
            ExitCode.INPUT,
        )
    for image in manifest.images:
        console.say(f"{image.reference}  {image.config[:19]}")
    console.say(f"signature: {signed}")
    console.data(f"verified {len(manifest.files) + 2} files, {console.size(manifest.size)}")
