"""Which Compose files are in force, and in which order. It reads names and looks into the folder; it starts nothing."""

from __future__ import annotations

from pathlib import Path

from kit.catalog import images

COMPOSE = "compose.yaml"
ENGINE_20 = "compose.engine-20.yaml"  # engines older than 25
MODELS = "compose.models.yaml"  # a volume for what online images download
OFFLINE = "compose.offline.yaml"  # a host without network
API_ONLY = "compose.api-only.yaml"  # no VLM server
GATEWAY = "compose.gateway.yaml"  # one door in front of several APIs
PREVIEW, PREVIEW_GATEWAY = "compose.preview.yaml", "compose.preview-gateway.yaml"  # the same on a CPU

# What Compose reads by itself, in the order in which it looks (compose-go, cli/options.go).
NAMES = (COMPOSE, "compose.yml", "docker-compose.yml", "docker-compose.yaml")
OVERRIDES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml")
SEPARATOR = ":"


def read_by_compose(folder: Path, setting: str | None, separator: str = SEPARATOR) -> list[str]:
    """What `docker compose` reads in `folder`. setting: COMPOSE_FILE. Empty where there is no Compose file."""
    if setting:
        return [name for name in setting.split(separator) if name]
    first = [name for name in NAMES if (folder / name).is_file()][:1]
    return first + ([name for name in OVERRIDES if (folder / name).is_file()][:1] if first else [])


def in_force(folder: Path, setting: str | None, *tags: str, gateway: bool = False) -> list[str]:
    """The GPU stack's files: those of COMPOSE_FILE and no other, or the kit's choice for images of these tags.

    gateway: API_REPLICAS is set.
    """
    read = read_by_compose(folder, setting)
    if not read or setting:
        return read
    read = with_(read, GATEWAY) if gateway else read
    return with_(read, MODELS) if want_volume(*tags) else read


def of_preview(gateway: bool) -> list[str]:
    """The files of the CPU preview in containers."""
    return [PREVIEW, GATEWAY, PREVIEW_GATEWAY] if gateway else [PREVIEW]


def want_volume(*tags: str) -> bool:
    """Do these images download their models, so that a volume is to keep them?

    A tag that does not tell counts as one with its models inside: without the volume a new container downloads them again,
    with it a mirror's offline image would not see its own.
    """
    known = [images.read(tag) for tag in tags]
    return all(tag is not None and not tag.offline for tag in known)


def with_(files: list[str], name: str) -> list[str]:
    """The files with `name` among them.

    What changes both services comes right behind the first file, before what is the user's; compose.offline.yaml has the last
    word on the network that the gateway can open. compose.api-only.yaml comes last: a later file that changes the service
    which it takes away would bring that back, without its image.
    """
    if name in files:
        return files
    at = len(files) if name == API_ONLY else files.index(GATEWAY) + 1 if name == OFFLINE and GATEWAY in files else 1
    return [*files[:at], name, *files[at:]]


def without(files: list[str], name: str) -> list[str]:
    """The files without `name`."""
    return [file for file in files if file != name]
