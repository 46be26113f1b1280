"""Proxies, the image registry, the model hubs. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import replace

from kit.catalog import requirements
from kit.doctor.check import GPU_STACK, Check, Subject
from kit.facts.docker import Engine
from kit.facts.network import Proxies, Reach

NOT_ASKED = "not asked (--offline, or compose.offline.yaml in COMPOSE_FILE)"
# What compose.yaml writes into NO_PROXY of both containers; tests/unit/test_doctor.py holds the two together.
NO_PROXY = ("paddleocr-vlm-server", "localhost", "127.0.0.1")


def proxies(found: Proxies, engine: Engine | None) -> Check:
    """What each proxy setting catches, and what not."""
    about = Subject(
        "proxies",
        "Proxies",
        "no proxy between client, API and VLM",
        'a proxy that catches the service names answers in their place: "Error code: 502" (OCR#17384)',
    )
    parts, hint = [], ""
    if found.client:
        parts.append(
            f"{found.client_file} puts {_listed(found.client)} into every container; "
            f"compose.yaml keeps calls to {NO_PROXY[0]} out of it (NO_PROXY)"
        )
    if found.here and {"http", "all"} & set(found.here) and not bypasses("127.0.0.1", found.bypass):
        parts.append(
            f"this shell sends http://127.0.0.1 to {_listed(found.here)}: curl and Python clients are caught, ./kit is not"
        )
        hint = "export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost"
    elif found.here:
        parts.append(f"this shell uses {_listed(found.here)}, not for http://127.0.0.1; Compose hands it to no container")
    if engine and engine.proxy:
        parts.append("the engine pulls images through a proxy of its own")
    text = "; ".join(parts) or "none is set"
    return about.warning(text, hint) if hint else about.ok(text)


def registry_url(image_registry: str) -> str:
    """The address at which a registry answers: /v2/ of its host (OCI distribution specification).

    image_registry: as in .env, HOST[:PORT]/NAMESPACE; without a host it is Docker Hub, as Docker reads it.
    """
    host, _, namespace = image_registry.partition("/")
    names_a_host = "." in host or ":" in host or (host == "localhost" and namespace != "")
    return f"https://{host if names_a_host else 'registry-1.docker.io'}/v2/"


def registry(found: Reach | None, engine: Engine | None, missing: bool) -> Check:
    """missing: an image that .env names is not here yet."""
    about = Subject(
        "registry",
        "Image registry",
        "it answers with HTTP 200 or 401",
        "both images are pulled from it once (IMAGE_REGISTRY); 401 is usual, the engine fetches a token next",
    )
    if found is None:
        return about.neutral(NOT_ASKED)
    answers = found.status in (200, 401)
    host = found.url.split("/")[2]
    if not answers and not missing:
        return about.neutral(f"{_told(found)}; not needed, both images are here already")
    if not answers and found.status is not None:
        return about.failed(
            _told(found), "IMAGE_REGISTRY in .env names something that is no registry, or a proxy answers for it", GPU_STACK
        )
    if not answers and engine and engine.proxy:
        return about.warning(f"{_told(found)} from here; the engine has a proxy of its own", "docker compose pull tries it")
    if not answers:
        hint = "check the network; set IMAGE_REGISTRY to a mirror, or carry the images over (README.md, Air-gapped host)"
        return about.failed(_told(found), hint, GPU_STACK)
    if found.url.startswith("http://") and missing and not _plain_is_fine(host, engine):
        hint = f'give it TLS, or add "{host}" to "insecure-registries" in /etc/docker/daemon.json and restart Docker'
        return about.failed(f"{_told(found)}, but without TLS, which the engine refuses", hint, GPU_STACK)
    return about.ok(_told(found))


def hubs(found: tuple[Reach, ...] | None, proxies: Proxies, *, offline_images: bool) -> Check:
    """offline_images: both tags carry the models inside."""
    seconds = requirements.MODEL_HUB_SECONDS
    about = Subject(
        "model-hubs",
        "Model hubs",
        f"one of {len(requirements.MODEL_HUBS)} answers within {seconds:g} s",
        "images without models load them at the first start, and give up after that time: "
        '"No available model hosting platforms detected" (OCR#16908)',
    )
    if offline_images:
        return replace(about, needed="nothing").neutral("tags that end in -offline carry their models")
    if found is None:
        return about.neutral(NOT_ASKED)
    good = [hub for hub in found if hub.status is not None and hub.status < 400]
    told = "; ".join(_told(hub) for hub in found)
    hint = "./kit configure --offline takes images with the models inside; or let the containers reach one hub"
    if not good and proxies.client:
        return about.warning(f"{told}, from here; containers are given a proxy of their own", hint)
    if not good:
        return about.failed(told, hint, GPU_STACK)
    if all(hub.seconds > seconds for hub in good):
        return about.warning(f"{told}: too slow for PaddleX", hint)
    return about.ok(told)


def bypasses(host: str, names: Iterable[str]) -> bool:
    """Does NO_PROXY keep `host` from the proxy? As curl and Python's clients read it: names, their ends, addresses, networks."""
    for name in names:
        if name == "*" or host == name or host.endswith("." + name.lstrip(".")):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(name, strict=False):
                return True
        except ValueError:
            continue
    return False


def _listed(settings: dict[str, str]) -> str:
    return ", ".join(sorted(set(settings.values())))


def _plain_is_fine(host: str, engine: Engine | None) -> bool:
    """Docker takes a registry without TLS on this machine itself, and where its configuration says so."""
    return host.startswith(("127.", "localhost")) or engine is None or host in engine.insecure


def _told(reach: Reach) -> str:
    host = reach.url.split("/")[2]
    return f"{host}: HTTP {reach.status} in {reach.seconds:.1f} s" if reach.status is not None else f"{host}: {reach.problem}"
