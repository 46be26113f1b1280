"""Which image a container truly runs: its exact name and id, and whether it is an official one. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kit.catalog.settings import SETTINGS

# On each image that is built from this repository: images/*.Dockerfile, tests/docker.
KIND_LABEL = "paddleocr-vl-kit.image"
KINDS = {
    "cpu-preview": "CPU preview, stand-in models",
    "stub": "STUB for tests, reads no document",
    "tiny-random-model": "TEST image, tiny random model",
}
OFFICIAL_REGISTRY = SETTINGS["IMAGE_REGISTRY"].default


@dataclass(frozen=True)
class Image:
    """reference: as Compose was told. id: sha256 of its config, as `docker images` shows it. kind: in words."""

    service: str
    reference: str
    id: str
    kind: str


def image_of(service: str, container: dict[str, Any], inspected: dict[str, Any]) -> Image:
    """container, inspected: what `docker inspect` tells of the container and of the image that it runs."""
    reference = container["Config"]["Image"]
    return Image(service, reference, container["Image"], kind_of(reference, inspected))


def kind_of(reference: str, inspected: dict[str, Any]) -> str:
    """Ours say so by a label. An official one is known by the digest under which its registry gave it out.

    `docker load` and `docker build` leave no such digest, so what came that way is not called official,
    whatever its name.
    """
    label = ((inspected.get("Config") or {}).get("Labels") or {}).get(KIND_LABEL)
    if label:
        return KINDS.get(label, label)
    repository = reference.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    digests = (digest.split("@") for digest in inspected.get("RepoDigests") or ())
    digest = next((digest for name, digest in digests if name == repository), None)
    if not digest:
        return "not from a registry: loaded from a file or built here"
    if repository.startswith(f"{OFFICIAL_REGISTRY}/"):
        return f"official, {digest}"
    return f"from {repository.rpartition('/')[0]}, {digest}"
