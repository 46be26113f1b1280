"""Look at this machine as `.env` wants it: what joins the settings, the facts and the judgement."""

from __future__ import annotations

from kit import doctor, envs
from kit.catalog.requirements import MODEL_HUBS
from kit.catalog.settings import ENV_FILE, Settings
from kit.facts.survey import Facts, survey
from kit.paths import ROOT
from kit.preview import install
from kit.stack import files

TIMEOUT = 10.0  # seconds; a registry on the other side of the world takes some


def look(settings: Settings, *, offline: bool, timeout: float = TIMEOUT) -> tuple[Facts, list[doctor.Check], doctor.Wanted]:
    """What was asked for, what was found, and what to make of it. On a host that is said to have no network nobody is asked."""
    offline = offline or files.OFFLINE in files.read_by_compose(ROOT, settings.given("COMPOSE_FILE"))
    wanted = doctor.Wanted(
        registry=settings["IMAGE_REGISTRY"],
        api_tag=settings["API_IMAGE_TAG_SUFFIX"],
        vlm_tag=settings["VLM_IMAGE_TAG_SUFFIX"],
        backend=settings["VLM_BACKEND"],
        preview_bytes=_preview_bytes(),
        configured=(ROOT / ENV_FILE).exists(),
    )
    facts = survey(
        ROOT,
        {
            "API_PORT": (settings["API_BIND"], int(settings["API_PORT"])),
            "PREVIEW_VLM_PORT": ("127.0.0.1", int(settings["PREVIEW_VLM_PORT"])),
        },
        wanted.image_names,
        registry="" if offline else doctor.network.registry_url(wanted.registry),
        hubs=() if offline or wanted.models_inside else MODEL_HUBS,
        timeout=timeout,
    )
    return facts, doctor.examine(facts, wanted), wanted


def _preview_bytes() -> int:
    """Disk that installing the preview would still take."""
    home = install.Installation(ROOT)
    parts = ((home.vlm_venv, install.VLM_BYTES, "vlm"), (home.api_venv, install.API_BYTES, "api"))
    return sum(size for venv, size, name in parts if not envs.is_current(venv, install.HERE / f"requirements-{name}.txt"))
