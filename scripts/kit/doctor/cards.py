"""Driver and cards: what the machine has against what the images and the memory plan need. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from kit import plan
from kit.catalog import images
from kit.catalog.backends import BACKENDS, Backend, find
from kit.catalog.requirements import CAPABILITIES, DRIVER_OF_CUDA
from kit.doctor.check import GPU_STACK, MIB, Check, Subject, dotted, gib
from kit.errors import KitError
from kit.facts.gpus import Gpu, Nvidia, Process
from kit.facts.machine import Machine
from kit.plan import memory
from kit.plan.cards import Card, cards_of


def driver(nvidia: Nvidia, machine: Machine) -> Check:
    builds = {build for gpu in nvidia.gpus if (build := images.build_for(gpu.capability))}
    least = min((images.LEAST_CUDA[build] for build in builds), default=images.LEAST_CUDA[images.DEFAULT])
    needed = f"a driver that serves CUDA {dotted(least)} or newer"
    if builds == {images.BLACKWELL}:
        needed += ", for the sm120 images of Blackwell cards"
    about = Subject("driver", "NVIDIA driver", needed, "the official images are built with it (PaddleOCR-VL documentation)")
    if nvidia.problem:
        return about.failed(nvidia.problem, _driver_hint(nvidia.cause, machine), GPU_STACK)
    version = nvidia.driver or "of unknown version"
    if not nvidia.cuda:
        return about.warning(f"{version}, CUDA unknown", "nvidia-smi shows the CUDA version at its top")
    found = f"{version}, CUDA {dotted(nvidia.cuda)}"
    if nvidia.cuda < least:
        where = " in Windows" if machine.wsl else ""
        hint = f"update the driver{where} to version {DRIVER_OF_CUDA[least]} or newer, then restart"
        return about.failed(found, hint, GPU_STACK)
    return about.ok(found)


def cards(nvidia: Nvidia, machine: Machine, backend: Backend) -> Iterator[Check]:
    """A check a card. Those that cannot hold both services fail only where no card can; what is left to start on says `room`."""
    why = f"what {backend.name} runs on ({backend.source.partition(':')[0]})"
    needed = f"compute capability {_capabilities(backend)}"
    if not nvidia.gpus and not nvidia.problem:
        hint = "lspci | grep -i nvidia shows whether the machine has one; a virtual machine must be given it"
        yield Subject("gpu", "GPU", needed, why).failed("the driver shows no card", hint, GPU_STACK)
    told = [(gpu, _obstacle(gpu, nvidia, machine, backend)) for gpu in nvidia.gpus]
    some_fit = any(not obstacle for _, (obstacle, _) in told)
    for gpu, (obstacle, hint) in told:
        room_needed = ""
        if total := max((instance.memory_total for instance in gpu.mig), default=gpu.memory_total):
            least = memory.least_free(total, with_api=True, whole_steps=backend.name == "fastdeploy")
            room_needed = f", {gib(least)} free for both services on {'an instance' if gpu.mig else 'this card'}"
        about = Subject(
            f"gpu-{gpu.index}", f"GPU {gpu.index}", needed + room_needed, f"{why}; memory as ./kit configure computes it"
        )
        if not obstacle:
            yield about.ok(_about(gpu))
        else:
            yield (about.warning if some_fit else about.failed)(f"{_about(gpu)}: {obstacle}", hint)


def room(nvidia: Nvidia, machine: Machine, backend: Backend, *, running: bool) -> Check:
    """Would ./kit configure find a plan? running: the kit's own service holds memory now."""
    about = Subject(
        "plan",
        "Memory plan",
        "cards that hold the VLM and the layout model",
        "as ./kit configure computes it (docs/configure.md)",
    )
    if not nvidia.gpus:
        return about.neutral("no card to plan with")
    try:
        made = plan.plan(nvidia, machine, plan.Wishes(backend=backend.name))
    except KitError as error:
        if running:
            return about.warning(f"{error.message}; the running service may be what holds it", "./kit down, then ./kit doctor")
        return about.failed(error.message, error.hint, GPU_STACK)
    return about.ok("; ".join(f"{choice.name}: {choice.value}" for choice in made.choices[:2]))


def backend_of(name: str) -> Backend:
    """The backend that .env names; for an unknown name, which ./kit lint reports, the usual one."""
    return find(name) or BACKENDS[0]


def _obstacle(gpu: Gpu, nvidia: Nvidia, machine: Machine, backend: Backend) -> tuple[str, str]:
    """(why this card cannot hold both services, hint), or ("", "")."""
    if machine.wsl and gpu is not nvidia.gpus[0]:
        return "not used: a program inside WSL2 takes the first card", "put the better card first in Windows, or use Linux"
    seen = cards_of(Nvidia(nvidia.driver, nvidia.cuda, (gpu,)), machine)
    found = [_card_obstacle(gpu, card, nvidia, backend) for card in seen]
    return next((entry for entry in found if not entry[0]), found[0])  # of a card's MIG instances one is enough


def _card_obstacle(gpu: Gpu, card: Card, nvidia: Nvidia, backend: Backend) -> tuple[str, str]:
    if gpu.problem:
        return card.problem, "sudo dmesg | grep -i xid shows whether the card has failed; a restart may bring it back"
    if card.problem and gpu.mig_enabled:
        return card.problem, "sudo nvidia-smi mig -lgip lists what can be made; sudo nvidia-smi -mig 0 switches MIG off"
    if card.problem:
        return card.problem, "use another card; nvidia-smi -q shows what this one tells"
    if card.build is None:
        return f"no official image runs on compute capability {dotted(card.capability)} (OCR#17077)", "use another card"
    if not backend.runs_on(card.capability):
        hint = "./kit configure --backend native (slow) or llama-cpp; or ./kit up --preview"
        return f"compute capability {dotted(card.capability)} is not served by {backend.name}", hint
    need = images.LEAST_CUDA[card.build]
    if nvidia.cuda and nvidia.cuda < need:
        hint = f"update the driver to version {DRIVER_OF_CUDA[need]} or newer"
        return f"its images need CUDA {dotted(need)}, the driver serves {dotted(nvidia.cuda)}", hint
    whole = backend.name == "fastdeploy"
    if not memory.vlm_budget(card.total, card.free, None, base=card.base, with_api=True, whole_steps=whole):
        hint = "stop what holds it (a running service: ./kit down); nvidia-smi shows who does"
        return f"only {gib(card.free)} of {gib(card.total)} are free", hint
    return "", ""


def _about(gpu: Gpu) -> str:
    parts = [
        gpu.name or "a card",
        f"compute capability {dotted(gpu.capability)}" if gpu.capability[0] else "",
        f"{gib(gpu.memory_free)} of {gib(gpu.memory_total)} free" if gpu.memory_total else "",
        gpu.uuid,
    ]
    text = ", ".join(part for part in parts if part)
    if gpu.mig_enabled:
        slices = ", ".join(f"{i.name} ({gib(i.memory_free)} free, {i.uuid})" for i in gpu.mig) or "no instance"
        text += f"; MIG is on: {slices}"
    if gpu.processes:
        text += "; held by " + ", ".join(_holder(process) for process in gpu.processes[:3])
        text += f" and {len(gpu.processes) - 3} more" if len(gpu.processes) > 3 else ""
    elif not gpu.processes_known and not gpu.problem:
        text += "; the driver does not tell who holds memory"
    return text


def _holder(process: Process) -> str:
    size = f", {process.memory / MIB:,.0f} MiB" if process.memory is not None else ""
    return f"{process.name or 'a program that is not visible here'} (pid {process.pid}{size})"


def _capabilities(backend: Backend) -> str:
    fitting = [dotted(c) for c in CAPABILITIES if images.build_for(c) and backend.runs_on(c)]
    return f"{', '.join(fitting[:-1])} or {fitting[-1]}"


def _driver_hint(cause: str, machine: Machine) -> str:
    if cause in ("no-library", "not-loaded") and machine.wsl:
        return "install or update NVIDIA's driver in Windows (never inside WSL2), then: wsl --update and wsl --shutdown"
    return {
        "no-library": "with an NVIDIA card install its driver (Ubuntu: sudo ubuntu-drivers install; Debian: sudo apt-get install "
        "nvidia-driver) and restart; without one: ./kit up --preview",
        "not-loaded": "sudo modprobe nvidia; where that fails, the module was not built for this kernel (dkms status) "
        "or there is no card",
        "mismatch": "restart the machine: the kernel still runs the driver from before the update",
        "no-permission": "ls -l /dev/nvidia*: this user must be able to read and write them",
        "no-answer": "the driver hangs: sudo dmesg | grep -i xid shows why; restart the machine",
    }.get(cause, "nvidia-smi should show the same; sudo dmesg | grep -i nvrm shows the driver's own words")
