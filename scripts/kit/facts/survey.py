"""Everything that ./kit doctor wants to know, asked side by side and in bounded time. Changes nothing, pulls nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kit.facts import disk, docker, gpus, network, ports
from kit.facts.disk import Space
from kit.facts.docker import Docker, Engine, Toolkit
from kit.facts.gpus import Nvidia
from kit.facts.machine import Machine, machine
from kit.facts.network import Proxies, Reach
from kit.facts.within import side_by_side

CONTAINERD_ROOT = Path("/var/lib/containerd")  # its default; the engine does not tell another


@dataclass(frozen=True)
class Port:
    """A port that a setting names.

    obstacle: see kit.facts.ports.obstacle; also "no-answer". holder: in words. ours: held by this clone's own services.
    """

    setting: str
    host: str
    port: int
    obstacle: str = ""
    holder: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Facts:
    """engine: None where none answers. images: those of the wanted that the engine has.

    image_space: None where it cannot be seen from here. registry, hubs: None where they were not asked (offline).
    """

    machine: Machine
    nvidia: Nvidia
    docker: Docker
    engine: Engine | None
    images: tuple[str, ...]
    image_space: Space | None
    toolkit: Toolkit
    project_space: Space | None
    ports: tuple[Port, ...]
    proxies: Proxies
    registry: Reach | None = None
    hubs: tuple[Reach, ...] | None = None


def survey(
    root: Path,
    wanted_ports: Mapping[str, tuple[str, int]],
    wanted_images: tuple[str, ...],
    *,
    registry: str = "",
    hubs: tuple[str, ...] = (),
    timeout: float,
) -> Facts:
    """Look around.

    root: of this clone. wanted_ports: setting → (address, port). wanted_images: names with tags.
    registry, hubs: addresses to reach; empty when offline.
    timeout: seconds for each single answer; the whole takes about three times as long at most.
    """
    asked: dict[str, tuple[Callable[[], Any], Any]] = {
        "nvidia": (
            partial(gpus.nvidia, timeout),
            Nvidia(problem=f"the NVIDIA driver did not answer within {timeout:g} s", cause="no-answer"),
        ),
        "docker": (
            partial(docker.docker, timeout),
            Docker(None, None, f"`docker version` did not answer within {timeout:g} s"),
        ),
        "engine": (partial(_engine, wanted_images, timeout), (None, (), None)),
        "toolkit": (partial(docker.toolkit, timeout), Toolkit()),
        "project": (partial(disk.space, root), None),
        "proxies": (partial(network.proxies, os.environ, Path.home()), Proxies()),
    }
    for setting, (host, number) in wanted_ports.items():
        question = partial(_port, root, setting, host, number, timeout)
        asked[f"port {setting}"] = (question, Port(setting, host, number, "no-answer"))
    if registry:
        asked["registry"] = (partial(_registry, registry, timeout), network.late(registry, timeout))
    for hub in hubs:
        asked[f"hub {hub}"] = (partial(network.reach, hub, timeout), network.late(hub, timeout))
    told = side_by_side(asked, 3 * timeout)
    engine, images, image_space = told["engine"]
    return Facts(
        machine=machine(),
        nvidia=told["nvidia"],
        docker=told["docker"],
        engine=engine,
        images=images,
        image_space=image_space,
        toolkit=told["toolkit"],
        project_space=told["project"],
        ports=tuple(told[f"port {setting}"] for setting in wanted_ports),
        proxies=told["proxies"],
        registry=told.get("registry"),
        hubs=tuple(told[f"hub {hub}"] for hub in hubs) if hubs else None,
    )


def _engine(wanted_images: tuple[str, ...], timeout: float) -> tuple[Engine | None, tuple[str, ...], Space | None]:
    engine = docker.engine(timeout)
    if engine is None:
        return None, (), None
    root = CONTAINERD_ROOT if engine.containerd and CONTAINERD_ROOT.is_dir() else Path(engine.root)
    # A folder that is not here is that of an engine inside a virtual machine or on another computer.
    visible = engine.here and bool(engine.root) and Path(engine.root).is_dir()
    here = {docker.familiar(name) for name in docker.images(timeout)}
    images = tuple(name for name in wanted_images if docker.familiar(name) in here)
    return engine, images, disk.space(root) if visible else None


def _registry(url: str, timeout: float) -> Reach:
    """By TLS, else without, as an engine does that is told to."""
    found = network.reach(url, timeout, "GET")
    if found.status is None and (plain := network.reach(url.replace("https://", "http://"), timeout, "GET")).status is not None:
        return plain
    return found


def _port(root: Path, setting: str, host: str, number: int, timeout: float) -> Port:
    obstacle = ports.obstacle(host, number)
    if obstacle != "taken":
        return Port(setting, host, number, obstacle)
    published = docker.publisher(number, timeout)
    if published:
        name, folder = published
        return Port(setting, host, number, obstacle, f"the container {name}", ours=bool(folder) and Path(folder) == root)
    holder = ports.holder(number)
    ours = bool(holder.folder) and Path(holder.folder).is_relative_to(root / ".kit")
    return Port(setting, host, number, obstacle, str(holder), ours)
