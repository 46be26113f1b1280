"""Docker and NVIDIA's toolkit. Pure."""

from __future__ import annotations

from dataclasses import replace

from kit.catalog import requirements
from kit.doctor.check import GPU_STACK, Check, Subject, dotted, numbers
from kit.facts.docker import Docker, Engine, Toolkit
from kit.facts.machine import Machine

_INSTALL_DOCKER = "docs.docker.com/engine/install; on Ubuntu: sudo apt-get install docker.io docker-compose-v2"
_INSTALL_TOOLKIT = (
    "install nvidia-container-toolkit (docs.nvidia.com/datacenter/cloud-native/container-toolkit), "
    "then: sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker"
)
_TRY = "docker run --rm --gpus all ubuntu nvidia-smi shows whether a container sees the card"
CDI_ENGINE = (29,)  # from here on not measured whether a CDI description alone will do


def docker(found: Docker, machine: Machine) -> Check:
    least, compose = requirements.LEAST_ENGINE, requirements.LEAST_COMPOSE
    about = Subject(
        "docker",
        "Docker",
        f"engine {dotted(least)} or newer with Compose {dotted(compose)} or newer",
        "the GPU stack is two containers; compose.yaml has `start_interval`, which older Compose refuses",
    )
    if not found.usable:
        return about.failed(found.problem or "it cannot be used", _docker_hint(found, machine), GPU_STACK)
    engine_version, compose_version = numbers(found.engine or ""), numbers(found.compose or "")
    text = f"engine {found.engine}, Compose {found.compose}"
    # A version that has no numbers, as one built from source, is not judged.
    if (engine_version and engine_version < least) or (compose_version and compose_version < compose):
        return about.failed(text, f"update Docker: {_INSTALL_DOCKER}", GPU_STACK)
    if engine_version and engine_version < requirements.ENGINE_WITH_START_INTERVAL:
        hint = "without ./kit: docker compose -f compose.yaml -f compose.engine-20.yaml up -d"
        return replace(
            about.ok(f"{text}; below 25, so ./kit adds compose.engine-20.yaml", hint),
            why="engines below 25 refuse `start_interval` (measured with 20.10)",
        )
    return about.ok(text)


def toolkit(found: Toolkit, engine: Engine | None, machine: Machine, *, cards: bool) -> Check:
    """Does the engine know the driver "nvidia"? It does when it finds nvidia-container-runtime-hook on its PATH."""
    about = Subject(
        "toolkit",
        "NVIDIA Container Toolkit",
        "nvidia-container-runtime-hook on the engine's PATH",
        'without it the engine refuses both containers: could not select device driver "nvidia" (measured, engines 20.10 to 28)',
    )
    ways = _ways(found, engine)
    if not cards:
        return about.neutral("; ".join(part for part in ("no card to hand on", ways) if part))
    if engine is None:
        return about.neutral("; ".join(part for part in ("no engine answers", ways) if part))
    if engine.desktop:
        desktop = replace(about, needed="Docker Desktop with its WSL2 backend", why="it brings its own toolkit, for WSL2 alone")
        if machine.wsl and "nvidia" in engine.runtimes:
            return desktop.ok(f"Docker Desktop, {ways}")
        return desktop.neutral("Docker Desktop, whose parts are not visible here", _TRY)
    if not engine.here:
        return about.neutral(f"the engine is elsewhere ({engine.endpoint}); its programs are not visible here", _TRY)
    least = requirements.LEAST_TOOLKIT_ON_WSL
    if machine.wsl and found.ctk and numbers(found.ctk) < least:
        old = replace(about, needed=f"version {dotted(least)} or newer in WSL2", why="older ones give no GPU there (OCR#17893)")
        return old.failed(ways, "sudo apt-get install --only-upgrade nvidia-container-toolkit", GPU_STACK)
    if found.hook:
        return about.ok(ways)
    if "nvidia" in engine.runtimes or (engine.cdi and numbers(engine.version) >= CDI_ENGINE):
        # A snap, or an engine whose PATH is not this user's, may have the hook where this user does not see it.
        return about.warning(f"{ways}, but no hook on this user's PATH", f"{_TRY}; if not: {_INSTALL_TOOLKIT}")
    if ways:
        about = replace(about, why=about.why + "; a CDI description alone does not do (measured, engine 28.5.2)")
    return about.failed(f"{ways or 'nothing of it'}; no hook", _INSTALL_TOOLKIT, GPU_STACK)


def _ways(found: Toolkit, engine: Engine | None) -> str:
    """How this machine could hand a card to a container, in words."""
    parts = [
        f"hook {found.hook}" if found.hook else "",
        f"nvidia-ctk {found.ctk}" if found.ctk else "",
        'runtime "nvidia"' if engine and "nvidia" in engine.runtimes else "",
        f"CDI {', '.join(engine.cdi[:3])}" if engine and engine.cdi else "",
        f"CDI description {found.cdi_specs[0]}" if found.cdi_specs else "",
    ]
    return ", ".join(part for part in parts if part)


def _docker_hint(found: Docker, machine: Machine) -> str:
    problem = found.problem
    if "not installed" in problem and found.engine is None:
        return f"{_INSTALL_DOCKER}; ./kit up --preview needs no Docker"
    if "permission denied" in problem:
        return "sudo usermod -aG docker $USER, then log in again"
    if "did not answer" in problem:
        return "the engine hangs: sudo systemctl restart docker"
    if found.engine:
        return "install the Compose plugin: docker-compose-plugin of Docker's own packages, docker-compose-v2 of Ubuntu's"
    if machine.wsl:
        return "sudo service docker start; or Docker Desktop in Windows with Settings, Resources, WSL integration"
    return "start Docker Desktop" if machine.system == "Darwin" else "sudo systemctl start docker"
