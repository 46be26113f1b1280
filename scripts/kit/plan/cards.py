"""Which cards there are to plan with, and which the wishes leave. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.catalog import images
from kit.catalog.requirements import IMAGE_ARCHITECTURES
from kit.errors import ExitCode, KitError
from kit.facts.gpus import Gpu, MigInstance, Nvidia, Process
from kit.facts.machine import Machine

PREVIEW = "./kit up --preview runs the CPU preview here"


@dataclass(frozen=True)
class Card:
    """A GPU or a MIG instance, as Docker can hand it to a container.

    device: what device_ids takes. label: for people. base: the total of which vLLM computes its share. All memory in bytes.
    """

    device: str
    label: str
    names: tuple[str, ...]
    capability: tuple[int, int]
    total: int
    free: int
    base: int
    mig: bool = False
    processes: tuple[Process, ...] = ()
    problem: str = ""

    @property
    def build(self) -> str | None:
        return images.build_for(self.capability)

    @property
    def holders(self) -> str:
        """Who holds its memory, in words; "" when nobody is known to."""
        largest = sorted(self.processes, key=lambda process: -(process.memory or 0))[:3]
        return ", ".join(f"{process.name or 'a program'} (pid {process.pid})" for process in largest)


def require_host(machine: Machine) -> None:
    """Raise KitError (ENVIRONMENT) where no official NVIDIA image can run."""
    if machine.system != "Linux":
        raise KitError(
            f"the official images need Linux with an NVIDIA GPU; this is {machine.system}",
            "on Windows run ./kit inside WSL2; on a Mac " + PREVIEW,
            ExitCode.ENVIRONMENT,
        )
    if machine.arch.lower() not in IMAGE_ARCHITECTURES:
        raise KitError(
            f"the official NVIDIA images are for x86_64 alone; this is {machine.arch} (OCR#17077)",
            f"serve the VLM here by llama.cpp or vLLM and give its --vlm-url to the kit on an x86_64 machine; {PREVIEW}",
            ExitCode.ENVIRONMENT,
        )


def cards_of(nvidia: Nvidia, machine: Machine) -> tuple[Card, ...]:
    """Every card and MIG instance. Raises KitError (ENVIRONMENT) when there is none."""
    if not nvidia.gpus:
        raise KitError(
            nvidia.problem or "the NVIDIA driver shows no GPU",
            f"a plan needs an NVIDIA GPU of compute capability 7.0 or newer and its driver; {PREVIEW}",
            ExitCode.ENVIRONMENT,
        )
    # WSL2 hands all cards to every container, and a program takes the first (NVIDIA, CUDA on WSL, known limitations).
    seen = nvidia.gpus[:1] if machine.wsl else nvidia.gpus
    return tuple(card for gpu in seen for card in _cards(gpu, alone=len(nvidia.gpus) == 1 or machine.wsl))


def wanted(cards: Sequence[Card], ids: Sequence[str]) -> tuple[Card, ...]:
    """The cards that --gpu names, in its order: index, UUID or the beginning of one. Raises KitError (USAGE)."""
    chosen: list[Card] = []
    for word in ids:
        found = [c for c in cards if word in c.names] or [
            c for c in cards if len(word) > 4 and any(n.startswith(word) for n in c.names)
        ]
        if len(found) != 1 or found[0] in chosen:
            problem = "is named twice" if found and found[0] in chosen else "names several cards" if found else "is not here"
            raise KitError(f"--gpu {word} {problem}", "there are: " + "; ".join(c.label for c in cards), ExitCode.USAGE)
        chosen += found
    return tuple(chosen)


def _cards(gpu: Gpu, alone: bool) -> list[Card]:
    label = f"GPU {gpu.index} ({gpu.name or 'unknown'})"
    if gpu.mig_enabled and gpu.mig:
        return [_slice(gpu, instance) for instance in gpu.mig]
    problem = gpu.problem and f"does not answer: {gpu.problem}"
    if gpu.mig_enabled:
        problem = "has MIG on and no instance: make one (nvidia-smi mig -cgi … -C), or switch MIG off"
    elif not problem and not (gpu.memory_total and gpu.capability[0]):
        problem = "does not tell its memory or compute capability"
    # Several cards are named by UUID: an index moves when a card is added or lost.
    device = str(gpu.index) if alone or not gpu.uuid else gpu.uuid
    names = (str(gpu.index), gpu.uuid)
    return [
        Card(
            device, label, names, gpu.capability, gpu.memory_total, gpu.memory_free, gpu.memory_total,
            processes=gpu.processes, problem=problem,
        )
    ]  # fmt: skip


def _slice(gpu: Gpu, instance: MigInstance) -> Card:
    return Card(
        device=instance.uuid,
        label=f"{instance.uuid} ({instance.name} of GPU {gpu.index}, {gpu.name})",
        names=(instance.uuid,),
        capability=gpu.capability,
        total=instance.memory_total,
        free=instance.memory_free,
        # vLLM 0.10.2 takes its share of the slice (torch.cuda.mem_get_info), others of the whole GPU (vllm#41776). With the
        # larger total the start passes both ways; the cache then gets a size of its own.
        base=gpu.memory_total or instance.memory_total,
        mig=True,
    )
