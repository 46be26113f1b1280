"""NVIDIA driver and GPUs of this machine, by NVML's official Python binding.

NVML is asked in a child process. A driver in trouble can hold its caller for ever inside
the kernel (OCR#17693), where no signal reaches it; a child can be left behind.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pynvml

TIMEOUT = 15.0  # seconds; without the persistence daemon the driver wakes each card first, which takes seconds a card

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """A program that holds memory of a GPU. name: "" where it is not visible. memory: bytes, None where the driver keeps it."""

    pid: int
    name: str
    memory: int | None


@dataclass(frozen=True)
class MigInstance:
    """A slice of a GPU. name: its profile, such as "1g.10gb". Memory in bytes."""

    uuid: str
    name: str
    memory_total: int
    memory_free: int


@dataclass(frozen=True)
class Gpu:
    """One card. What the driver does not tell is 0, (0, 0) or "".

    memory_total, memory_free: bytes. The driver keeps some hundred MiB for itself, so an
    idle card has less free than its total; CUDA's own total is about the free memory of an idle card.
    capability: CUDA compute capability, such as (8, 9).
    processes_known: False where the driver does not tell who holds memory, as on WSL2.
    problem: why the card itself did not answer, in words.
    """

    index: int
    name: str
    uuid: str
    memory_total: int
    memory_free: int
    capability: tuple[int, int]
    processes: tuple[Process, ...] = ()
    mig: tuple[MigInstance, ...] = ()
    mig_enabled: bool = False
    processes_known: bool = True
    problem: str = ""


@dataclass(frozen=True)
class Nvidia:
    """What the driver tells. cuda: the newest CUDA version that it serves. gpus: in PCI order, as nvidia-smi numbers them.

    problem: why nothing is known, in words. cause: the same for a program: "no-library",
    "not-loaded", "mismatch", "no-permission", "no-answer" or "error"; both "" when the driver answered.
    """

    driver: str | None = None
    cuda: tuple[int, int] | None = None
    gpus: tuple[Gpu, ...] = ()
    problem: str = ""
    cause: str = ""


# Return values of nvmlInit, from nvml.h, section nvmlReturn_t.
_CAUSES: dict[int, tuple[str, str]] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: ("no-library", "no NVIDIA driver is installed (no usable libnvidia-ml.so.1)"),
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: ("not-loaded", "the NVIDIA driver is installed, but its kernel module is not loaded"),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "mismatch",
        "the NVIDIA driver was updated while the old one is still loaded (driver/library version mismatch)",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: ("no-permission", "this user may not talk to the NVIDIA driver"),
}


def nvidia(timeout: float = TIMEOUT) -> Nvidia:
    """Ask the driver; never raises, never takes longer than `timeout` seconds."""
    scripts = str(Path(__file__).resolve().parents[2])
    child = "import sys; sys.path[0] = sys.argv.pop(1); from kit.facts import gpus; gpus.main()"
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", child, scripts],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Nvidia(problem=f"the NVIDIA driver cannot be asked: {error}", cause="error")
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()  # and no wait: inside the kernel it may never end
        return Nvidia(problem=f"the NVIDIA driver did not answer within {timeout:g} s", cause="no-answer")
    except BaseException:
        process.kill()
        raise
    if process.returncode:
        last = (err.strip().splitlines() or [f"status {process.returncode}"])[-1]
        return Nvidia(problem=f"the NVIDIA driver's library broke down: {last}", cause="error")
    return from_json(json.loads(out))


def main() -> None:
    """In the child: one JSON object on stdout."""
    json.dump(asdict(_ask()), sys.stdout)


def from_json(answer: dict[str, Any]) -> Nvidia:
    """The Nvidia of which `dataclasses.asdict` gave this."""
    gpus = [
        Gpu(
            **{
                **card,
                "capability": tuple(card["capability"]),
                "processes": tuple(Process(**process) for process in card["processes"]),
                "mig": tuple(MigInstance(**instance) for instance in card["mig"]),
            }
        )
        for card in answer["gpus"]
    ]
    cuda = answer["cuda"]
    return Nvidia(**{**answer, "cuda": tuple(cuda) if cuda else None, "gpus": tuple(gpus)})


def _ask() -> Nvidia:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        cause, words = _CAUSES.get(error.value, ("error", f"the NVIDIA driver answers with an error: {error}"))
        return Nvidia(problem=words, cause=cause)
    # v2 needs libcuda.so.1; without it v1 tells the version that the driver serves.
    cuda = _told(pynvml.nvmlSystemGetCudaDriverVersion_v2) or _told(pynvml.nvmlSystemGetCudaDriverVersion)
    return Nvidia(
        driver=_told(pynvml.nvmlSystemGetDriverVersion),
        cuda=(cuda // 1000, cuda % 1000 // 10) if cuda else None,
        gpus=tuple(_gpu(index) for index in range(_told(pynvml.nvmlDeviceGetCount) or 0)),
    )


def _gpu(index: int) -> Gpu:
    try:
        card = pynvml.nvmlDeviceGetHandleByIndex(index)
    except pynvml.NVMLError as error:
        return Gpu(index, "", "", 0, 0, (0, 0), processes_known=False, problem=str(error))
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, card)
    current, _pending = _told(pynvml.nvmlDeviceGetMigMode, card) or (0, 0)
    processes = _processes(card)
    return Gpu(
        index=index,
        name=_told(pynvml.nvmlDeviceGetName, card) or "",
        uuid=_told(pynvml.nvmlDeviceGetUUID, card) or "",
        memory_total=int(memory.total) if memory else 0,
        memory_free=int(memory.free) if memory else 0,
        capability=tuple(_told(pynvml.nvmlDeviceGetCudaComputeCapability, card) or (0, 0)),
        processes=processes or (),
        mig=_mig(card) if current else (),
        mig_enabled=bool(current),
        processes_known=processes is not None,
    )


def _mig(card: Any) -> tuple[MigInstance, ...]:
    instances = []
    for index in range(_told(pynvml.nvmlDeviceGetMaxMigDeviceCount, card) or 0):
        device = _told(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, index)
        if device is None:  # slots may be empty
            continue
        memory = _told(pynvml.nvmlDeviceGetMemoryInfo, device)
        name = _told(pynvml.nvmlDeviceGetName, device) or ""  # "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
        instances.append(
            MigInstance(
                uuid=_told(pynvml.nvmlDeviceGetUUID, device) or "",
                name=name.rpartition(" MIG ")[2],
                memory_total=int(memory.total) if memory else 0,
                memory_free=int(memory.free) if memory else 0,
            )
        )
    return tuple(instances)


def _processes(card: Any) -> tuple[Process, ...] | None:
    """Who holds memory, the largest first; None where the driver does not tell."""
    holders: dict[int, Process] = {}
    known = False
    for kind in ("Compute", "Graphics"):
        # Drivers before R510 have the second version of these calls alone.
        for version in ("v3", "v2"):
            listed = _told(getattr(pynvml, f"nvmlDeviceGet{kind}RunningProcesses_{version}"), card)
            if listed is not None:
                known = True
                holders.update({entry.pid: Process(entry.pid, _name(entry.pid), entry.usedGpuMemory) for entry in listed})
                break
    return tuple(sorted(holders.values(), key=lambda holder: -(holder.memory or 0))) if known else None


def _name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except (psutil.Error, ValueError):  # another user's, or outside of this container
        return ""


def _told(question: Callable[..., T], *arguments: Any) -> T | None:
    """The answer, or None: a call that a driver does not know must not cost the whole card."""
    try:
        return question(*arguments)
    except pynvml.NVMLError:
        return None
