"""Records what the NVIDIA driver of this machine tells, in the form of tests/machines.

.kit/test-venv/bin/python tests/nvml/record.py > tests/machines/NAME.json
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import date
from typing import Any

import pynvml

MIB = 2**20


def record() -> dict[str, Any]:
    """The machine; a call that fails is recorded with its error's name."""
    about = f"Recorded {date.today()} on {platform.system()} {platform.release()} by tests/nvml/record.py."
    init = _told(pynvml.nvmlInit)
    if init is not None:
        absent = init == {"error": "LIBRARY_NOT_FOUND"}
        return {"about": about, **({"library": "absent"} if absent else {"init": init})}
    return {
        "about": about,
        "driver": _told(pynvml.nvmlSystemGetDriverVersion),
        "cuda": _told(pynvml.nvmlSystemGetCudaDriverVersion),
        "cuda_v2": _told(pynvml.nvmlSystemGetCudaDriverVersion_v2),
        "gpus": [_card(index) for index in range(pynvml.nvmlDeviceGetCount())],
    }


def _card(index: int) -> dict[str, Any]:
    card = _told(pynvml.nvmlDeviceGetHandleByIndex, index)
    if isinstance(card, dict):
        return {"handle": card, "memory": card}
    told: dict[str, Any] = {
        **_who(card),
        "capability": _told(pynvml.nvmlDeviceGetCudaComputeCapability, card),
        "memory": _memory(card),
        "compute": _processes(pynvml.nvmlDeviceGetComputeRunningProcesses_v3, card),
        "graphics": _processes(pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, card),
    }
    mode = _told(pynvml.nvmlDeviceGetMigMode, card)
    told["mig_mode"] = mode if isinstance(mode, dict) else mode[0]
    if told["mig_mode"] == 1:
        told["mig_slots"] = _told(pynvml.nvmlDeviceGetMaxMigDeviceCount, card)
        slots = [_told(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, card, slot) for slot in range(told["mig_slots"])]
        told["mig"] = [None if isinstance(slot, dict) else {**_who(slot), "memory": _memory(slot)} for slot in slots]
    return told


def _who(device: Any) -> dict[str, Any]:
    return {"name": _told(pynvml.nvmlDeviceGetName, device), "uuid": _told(pynvml.nvmlDeviceGetUUID, device)}


def _memory(device: Any) -> dict[str, Any]:
    memory = _told(pynvml.nvmlDeviceGetMemoryInfo, device)
    if isinstance(memory, dict):
        return memory
    return {"total_mib": memory.total / MIB, "used_mib": (memory.total - memory.free) / MIB}


def _processes(question: Callable[..., Any], card: Any) -> Any:
    listed = _told(question, card)
    if isinstance(listed, dict):
        return listed
    sizes = [entry.usedGpuMemory for entry in listed]
    return [{"pid": entry.pid, "mib": None if size is None else size / MIB} for entry, size in zip(listed, sizes, strict=True)]


def _told(question: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return question(*arguments)
    except pynvml.NVMLError as error:
        names = {value: name for name, value in vars(pynvml).items() if name.startswith("NVML_ERROR_")}
        return {"error": names.get(error.value, "NVML_ERROR_UNKNOWN").removeprefix("NVML_ERROR_")}


if __name__ == "__main__":
    print(json.dumps(record(), indent=2))
