"""./kit load: a bundle into this host's engine."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from kit import configure, console, envs
from kit.bundle import fit, models, signature
from kit.bundle import load as loading
from kit.bundle import manifest as manifests
from kit.bundle.manifest import PREVIEW, Manifest
from kit.bundle.verify import checksums
from kit.bundle.wanted import compose_files
from kit.catalog.settings import ENV_FILE, Settings
from kit.errors import ExitCode, KitError
from kit.facts import docker
from kit.facts.gpus import nvidia
from kit.paths import ROOT
from kit.stack import files
from kit.stack.compose import ComposeStack
from kit.verbs.arguments import Verbs


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser(
        "load",
        help="a bundle into this host's Docker engine, and its settings into .env",
        description="Checks every byte while it goes into the engine, skips images and layers that are there, gives the images "
        "their names last, and sets .env so that no registry is ever asked for them. The bundle is only read.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="what ./kit export wrote")
    parser.add_argument(
        "--base", type=Path, action="append", default=[], metavar="BUNDLE", help="the bundle that this one is based on"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="public key, of minisign or ssh, that must have signed it")
    parser.add_argument("--replace", action="store_true", help="take over a name that another image has here")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    manifest = manifests.read(arguments.folder)
    signed = signature.check(arguments.folder, arguments.key)
    found = docker.docker()
    told = docker.engine() if found.usable else None
    if told is None:
        raise KitError(f"there is no Docker engine to load into: {found.problem}", "./kit doctor", ExitCode.ENVIRONMENT)
    console.say(f"signature: {signed}")
    for fault in checksums(arguments.folder, manifest):
        raise manifests.damaged(arguments.folder / fault.name, fault.what)
    for line in fit.misfits(manifest.requires, nvidia()):
        console.say(f"warning: {line}", "yellow")
    bundle = loading.Bundle(arguments.folder, manifest, arguments.base)
    (ROOT / ".kit").mkdir(exist_ok=True)
    lock = envs.locked(ROOT / ".kit" / "load.lock", waiting=lambda: console.say("another ./kit load is under way; waiting"))
    with lock, console.Bytes() as progress:
        done = loading.load(bundle, told, progress, console.say, replace=arguments.replace)
        settings = _configure(manifest)
        if stream := bundle.models():
            progress.start("models", sum(folder.size for folder in manifest.models))
            models.fill(ComposeStack(ROOT, settings), _counted(stream, progress))
    words = {"loaded": "loaded", "named": "was here, has its name now", "there": "was here already"}
    for image in done:
        console.say(f"{image.reference}  {words[image.done]}")
    console.say("✔ all of it is here; no registry will be asked", "green")
    console.say(f"next: ./kit up{' --preview' if manifest.kind == PREVIEW else ''}")


def _configure(manifest: Manifest) -> Settings:
    """Write what names these images, and the overlays for a host without network, to .env; returns the settings then in force."""
    settings = Settings(ROOT, os.environ)
    if manifest.kind == PREVIEW:  # its Compose file asks nobody as it is
        return settings
    composed = compose_files(ROOT, settings, models=bool(manifest.models))
    values = manifest.settings | {"COMPOSE_FILE": files.SEPARATOR.join(composed)}
    change = configure.env_change(ROOT / ENV_FILE, values)
    if change.before != change.after:
        console.say(f"{change.title}:")
        for line in change.lines():
            console.say(f"  {line}")
        configure.write([change])
    for name, value in values.items():
        if os.environ.get(name) not in (None, "", value):
            console.say(f"{name}={os.environ[name]} in your environment wins over .env: unset it", "yellow")
    return Settings(ROOT, os.environ)


def _counted(pieces: Iterator[bytes], progress: console.Bytes) -> Iterator[bytes]:
    for piece in pieces:
        progress.advance(len(piece))
        yield piece
