"""The machine itself: system, memory, disks, ports. Pure."""

from __future__ import annotations

from kit.catalog import requirements
from kit.doctor.check import EVERYTHING, GPU_STACK, PREVIEW, Check, Subject, gb
from kit.facts.disk import Space
from kit.facts.docker import Engine
from kit.facts.machine import Machine
from kit.facts.survey import Port


def system(machine: Machine, engine: Engine | None) -> Check:
    why = "the official NVIDIA images are built for it alone (PaddleOCR-VL documentation; OCR#16823, OCR#17077)"
    about = Subject("system", "System", "Linux or WSL2 on x86-64", why)
    name = {"Darwin": "macOS"}.get(machine.system, machine.system) + (" in WSL2" if machine.wsl else "")
    found = f"{name}, {machine.arch}, {machine.cores} cores" + ("; Docker Desktop" if engine and engine.desktop else "")
    if machine.system != "Linux":
        hint = "./kit up --preview runs here; for the GPU stack use a Linux machine with an NVIDIA card"
        return about.failed(found, hint, GPU_STACK)
    if machine.arch not in requirements.IMAGE_ARCHITECTURES:
        hint = "./kit up --preview; or serve the VLM here by llama.cpp for an x86-64 machine (./kit configure --vlm-url there)"
        return about.failed(found, hint, GPU_STACK)
    if engine and engine.desktop and not machine.wsl:
        hint = "use Docker Engine instead of Docker Desktop, which hands on a GPU in WSL2 alone"
        return about.failed(found, hint, GPU_STACK)
    return about.ok(found)


def ram(machine: Machine) -> Check:
    needed = f"{gb(requirements.COMFORTABLE_RAM)} available; {gb(requirements.PREVIEW_RAM)} in all for the CPU preview"
    why = "the API renders whole PDFs into RAM: 2 to 10 GB over 300 pictures (OCR#17113); preview: docs/preview.md"
    about = Subject("ram", "RAM", needed, why)
    found = f"{gb(machine.memory_available)} of {gb(machine.memory_total)} available"
    wsl = "; in WSL2: memory= in .wslconfig" if machine.wsl else ""
    if machine.memory_total < requirements.PREVIEW_RAM:
        return about.failed(found, f"give the machine more memory{wsl}", EVERYTHING)
    if machine.memory_available < requirements.COMFORTABLE_RAM:
        return about.warning(found, f"send long PDFs in parts and watch docker stats{wsl}")
    return about.ok(found)


def image_disk(engine: Engine | None, space: Space | None, size: int | None, missing: bool) -> Check:
    """size: bytes of both images, None where it is not known. missing: one of them is not there yet."""
    if size is None:
        needed, why, whole = "room for both images", "the size of these tags is not known; official pairs take 21 to 60 GB", 0
    else:
        store = engine is not None and engine.containerd
        whole = int(size * requirements.CONTAINERD_STORE_FACTOR) if store else size
        needed, why = f"{gb(whole)} free for both images", "PaddleOCR-VL documentation; OCR#17050 measured 10.6 and 14.7 GB"
        why += "; containerd's store keeps the packed layers too (measured: 1.9 times)" if store else ""
    about = Subject("image-disk", "Disk for images", needed, why)
    if engine is None:
        return about.neutral("no engine answers, so its folder is not known")
    if not missing:
        return about.ok("both images are here already")
    if space is None:
        where = engine.system or engine.endpoint
        return about.neutral(f"the folder of this engine is not on a disk that is visible here ({where})")
    found = f"{gb(space.free)} of {gb(space.total)} free in {space.folder}"
    if space.free < whole:
        hint = 'docker system df shows what takes the room; "data-root" in /etc/docker/daemon.json moves it to a larger disk'
        return about.failed(found, hint, GPU_STACK)
    return about.ok(found) if whole else about.neutral(found)


def preview_disk(space: Space | None, size: int) -> Check:
    """size: bytes that the preview still needs; 0 once it is installed."""
    about = Subject(
        "preview-disk",
        "Disk for the preview",
        f"{gb(size)} free" if size else "nothing more",
        "environments and models of the CPU preview, in .kit/ (docs/preview.md)",
    )
    if not size:
        return about.ok("the preview is installed")
    if space is None:
        return about.warning("the disk did not answer", "df . shows whether its file system hangs")
    found = f"{gb(space.free)} of {gb(space.total)} free in {space.folder}"
    if space.free < size:
        return about.failed(found, "free some space, or clone the repository to a larger disk", PREVIEW)
    return about.ok(found)


def port(wanted: Port, *, containers: bool) -> Check:
    """containers: an engine is there, so that the preview's VLM needs no port."""
    api = wanted.setting == "API_PORT"
    about = Subject(
        f"port-{wanted.setting}",
        f"Port {wanted.port}",
        f"{wanted.host}:{wanted.port} free ({wanted.setting})",
        "the API listens there" if api else "the preview's VLM server listens there, where it runs as a process",
    )
    blocks = EVERYTHING if api else PREVIEW
    if not wanted.obstacle:
        return about.ok("free")
    if wanted.ours:
        return about.ok(f"held by this service: {wanted.holder}")
    if not api and containers:
        return about.neutral(f"held by {wanted.holder or 'another program'}; containers do not need it")
    if wanted.obstacle == "no-address":
        hint = "set API_BIND in .env to an address that `ip addr` shows, or to 0.0.0.0"
        return about.failed(f"{wanted.host} is no address of this machine", hint, blocks)
    if wanted.obstacle == "no-permission":
        found = "this user may not listen there"
        if containers:
            return about.ok(f"{found}, the engine may")
        return about.failed(found, f"take a port above 1023: {wanted.setting}=8080 in .env", blocks)
    if wanted.obstacle == "no-answer":
        return about.warning("who holds it could not be asked in time", f"ss -ltnp 'sport = :{wanted.port}' shows it")
    hint = f"stop that program, or take another port: {wanted.setting}={wanted.port + 1} in .env"
    return about.failed(f"held by {wanted.holder}", hint, blocks)
