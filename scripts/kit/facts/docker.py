"""Is there a Docker engine that answers, a Compose that can drive it, and what can it do."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.facts.command import ask

# A daemon that hangs must not hang ./kit.
TIMEOUT = 10.0  # seconds, a question


@dataclass(frozen=True)
class Docker:
    """engine, compose: versions, or None; problem: why the engine cannot be used, or empty."""

    engine: str | None
    compose: str | None
    problem: str = ""

    @property
    def usable(self) -> bool:
        return bool(self.engine and self.compose)


@dataclass(frozen=True)
class Engine:
    """What an engine tells of itself (`docker info`).

    version: such as "28.5.2+dfsg1".
    system: its operating system, such as "Debian GNU/Linux 12 (bookworm)" or "Docker Desktop".
    endpoint: where it is reached. root: its folder on its own machine. containerd: whether images lie in
    containerd's store. runtimes: such as "runc", "nvidia". cdi: CDI devices that it knows, such as "nvidia.com/gpu=0";
    None where it does not tell (before 28). proxy: whether it pulls through one. insecure: registries without TLS.
    """

    version: str
    system: str
    arch: str
    endpoint: str
    root: str
    containerd: bool
    runtimes: tuple[str, ...]
    cdi: tuple[str, ...] | None
    proxy: bool
    insecure: tuple[str, ...]

    @property
    def desktop(self) -> bool:
        return "Docker Desktop" in self.system

    @property
    def here(self) -> bool:
        """True when the engine's folders are folders of this machine."""
        return self.endpoint.startswith("unix://") and not self.desktop


@dataclass(frozen=True)
class Toolkit:
    """NVIDIA Container Toolkit. hook: path of nvidia-container-runtime-hook, by which an engine knows the driver "nvidia".

    ctk: version of nvidia-ctk, "" where there is none. cdi_specs: files that describe NVIDIA devices.
    """

    hook: str = ""
    ctk: str = ""
    cdi_specs: tuple[str, ...] = ()


def docker(timeout: float | None = None) -> Docker:
    """Ask the docker command; never raises, never waits longer than `timeout` (TIMEOUT) a question."""
    limit = TIMEOUT if timeout is None else timeout
    if not shutil.which("docker"):
        return Docker(None, None, "the command docker is not installed")
    engine, problem = ask(["docker", "version", "--format", "{{json .Server.Version}}"], limit)
    compose, no_compose = ask(["docker", "compose", "version", "--short"], limit)
    try:
        engine = json.loads(engine) if engine else None
    except ValueError:
        engine = None
    if engine and not compose:
        problem = no_compose or "the Compose plugin is not installed"
    return Docker(engine, compose.lstrip("v") if compose else None, "" if engine and compose else problem)


def engine(timeout: float | None = None) -> Engine | None:
    """What the engine tells of itself; None without one. Never raises; up to two questions of `timeout`."""
    limit = TIMEOUT if timeout is None else timeout
    if not shutil.which("docker"):
        return None
    text, _ = ask(["docker", "info", "--format", "{{json .}}"], limit)
    try:
        info = json.loads(text)
    except ValueError:
        return None
    if not isinstance(info, dict) or not info.get("ServerVersion"):
        return None
    endpoint, _ = ask(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"], limit)
    devices = info.get("DiscoveredDevices")  # since 28; None there too when no device was found
    return Engine(
        version=info["ServerVersion"],
        system=info.get("OperatingSystem") or "",
        arch=info.get("Architecture") or "",
        endpoint=os.environ.get("DOCKER_HOST") or endpoint,
        root=info.get("DockerRootDir") or "",
        containerd=any("containerd" in str(value) for _, value in info.get("DriverStatus") or ()),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        cdi=tuple(device.get("ID", "") for device in devices or ()) if "DiscoveredDevices" in info else None,
        proxy=bool(info.get("HttpProxy") or info.get("HttpsProxy")),
        insecure=_insecure(info.get("RegistryConfig") or {}),
    )


def images(timeout: float | None = None) -> tuple[str, ...]:
    """Names of the images that the engine has, as NAME:TAG."""
    text, _ = ask(["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"], TIMEOUT if timeout is None else timeout)
    return tuple(text.split())


def familiar(reference: str) -> str:
    """An image's name as the engine lists and saves it: without Docker Hub's own names, and with a tag."""
    name = reference
    for prefix in ("index.docker.io/", "docker.io/", "library/"):
        name = name.removeprefix(prefix)
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def publisher(port: int, timeout: float | None = None) -> tuple[str, str] | None:
    """(name, folder of its Compose project or "") of the container that publishes `port`; None where none does."""
    form = '{{.Names}}\t{{.Label "com.docker.compose.project.working_dir"}}'
    text, _ = ask(["docker", "ps", "--filter", f"publish={port}", "--format", form], TIMEOUT if timeout is None else timeout)
    if not text:
        return None
    name, _, folder = text.splitlines()[0].partition("\t")
    return name, folder


def toolkit(timeout: float | None = None) -> Toolkit:
    """What is installed of NVIDIA's toolkit on this machine. An engine elsewhere has its own."""
    version, _ = ask(["nvidia-ctk", "--version"], TIMEOUT if timeout is None else timeout)
    found = re.search(r"version\s+v?(\d+(?:\.\d+)+)", version)
    specs = [
        str(path)
        for folder in ("/etc/cdi", "/var/run/cdi")
        if (place := Path(folder)).is_dir() and os.access(place, os.R_OK | os.X_OK)
        for path in sorted(place.iterdir())
        if path.name.startswith("nvidia") and path.suffix in (".yaml", ".json")
    ]
    return Toolkit(shutil.which("nvidia-container-runtime-hook") or "", found[1] if found else "", tuple(specs))


def _insecure(registries: dict[str, Any]) -> tuple[str, ...]:
    known = registries.get("IndexConfigs") or {}
    return tuple(sorted(name for name, entry in known.items() if not entry.get("Secure", True)))
