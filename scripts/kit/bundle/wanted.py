"""What ./kit export carries: from the settings in force and the catalog."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from kit.bundle import engine
from kit.bundle.export import Source, Wanted
from kit.bundle.manifest import GPU, NAMED_BY, PREVIEW, SETTING, Requires
from kit.bundle.models import VOLUME
from kit.catalog import images
from kit.catalog.backends import find
from kit.catalog.requirements import CAPABILITIES, DRIVER_OF_CUDA
from kit.catalog.settings import Settings
from kit.doctor.check import dotted
from kit.errors import ExitCode, KitError
from kit.stack import files
from kit.stack.compose import ComposeStack


def wanted(
    stack: ComposeStack,
    part_size: int,
    bases: Sequence[Path],
    models: Source | None,
    write_kit: Callable[[Path, str], None] | None,
    kit_state: str,
) -> Wanted:
    """The images of `stack`, which are in the engine, and what belongs to them. Raises KitError (USAGE) for a setting that cannot
    be carried."""
    settings = stack.settings
    named = {} if stack.preview else {name: settings[name] for name in NAMED_BY}
    for name, value in named.items():
        if not SETTING.fullmatch(value):
            raise KitError(f"{name}={value} cannot be carried", "letters, digits, and _ . : / @ + -", ExitCode.USAGE)
    references = stack.wanted_images()
    tags = {reference: reference.rpartition(":")[2] for reference in references.values()}
    inside = {family.tag: family.carries for family in images.FAMILIES}
    offline = compose_files(stack.root, settings, models=models is not None)
    return Wanted(
        PREVIEW if stack.preview else GPU,
        kit_version(stack.root),
        tuple((service, reference) for service, reference in references.items()),
        named,
        None if stack.preview else requires(settings["API_IMAGE_TAG_SUFFIX"], settings["VLM_BACKEND"]),
        {reference: inside.get(tag, "") for reference, tag in tags.items()},
        part_size,
        tuple(files.of_preview(stack.gateway) if stack.preview else offline),
        f"{stack.config['name']}_{VOLUME}",
        tuple(bases),
        models,
        write_kit,
        kit_state,
    )


def requires(tag: str, backend: str) -> Requires | None:
    """What a host needs for official images of this tag; None for a tag that does not tell."""
    known, runs = images.read(tag), find(backend)
    if not known or not runs:
        return None
    cuda = images.LEAST_CUDA[known.build]
    fitting = [dotted(c) for c in CAPABILITIES if images.build_for(c) == known.build and runs.runs_on(c)]
    return Requires(dotted(cuda), DRIVER_OF_CUDA[cuda], backend, tuple(fitting))


def require_online(stack: ComposeStack) -> None:
    """Raise KitError (USAGE) where an image has its models inside: the volume of carried ones would hide them."""
    for reference in stack.wanted_images().values():
        if (known := images.read(reference.rpartition(":")[2])) and known.offline:
            raise KitError(
                f"--models: {reference} has its models inside, and the volume would hide them", "leave it out", ExitCode.USAGE
            )


def fetch_models_at_start(stack: ComposeStack) -> bool:
    """True for images that look for a model hub when they start."""
    tags = [reference.rpartition(":")[2] for reference in stack.wanted_images().values()]
    return not stack.preview and any((known := images.read(tag)) and not known.offline for tag in tags)


def compose_files(root: Path, settings: Settings, *, models: bool) -> list[str]:
    """What COMPOSE_FILE is to name on a host without network: the files in force here, and those for such a host.

    models: the bundle carries models, which lie in the volume there.
    """
    chosen = files.in_force(root, settings.given("COMPOSE_FILE"), gateway=settings.given("API_REPLICAS") is not None)
    chosen = files.with_(files.without(chosen, files.MODELS), files.OFFLINE)
    return files.with_(chosen, files.MODELS) if models else chosen


def obtain(stack: ComposeStack, *, anew: bool, report: Callable[[str], None]) -> None:
    """See to it that every image is in the engine. anew: also ask the registry for those that are.

    Raises KitError (ENVIRONMENT) where that fails, or compose.offline.yaml is in force: with it Compose silently pulls nothing.
    """
    wanted = stack.wanted_images()
    lacking = [service for service, reference in wanted.items() if anew or not engine.find(reference)]
    if lacking and not stack.preview and files.OFFLINE in (file.name for file in stack.compose_files):
        raise KitError(
            f"{wanted[lacking[0]]} would have to be pulled, and {files.OFFLINE} is in force, which pulls nothing",
            f"take {files.OFFLINE} out of COMPOSE_FILE in .env",
            ExitCode.ENVIRONMENT,
        )
    if lacking:
        stack.get_images(lacking, report)


def kit_version(root: Path) -> str:
    """As git tells it; in a kit that came by a bundle, as the one that wrote it told."""
    note = root / ".kit" / "version"
    if note.is_file():
        return note.read_text().strip()
    argv = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        return (
            subprocess.run(argv, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL).stdout.strip() or "unknown"
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
