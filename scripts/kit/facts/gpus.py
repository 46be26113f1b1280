"""NVIDIA driver and GPUs of this machine, by NVML's official Python binding."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml


@dataclass(frozen=True)
class Gpu:
    """memory_total: bytes. capability: CUDA compute capability, such as (8, 9)."""

    index: int
    name: str
    uuid: str
    memory_total: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Nvidia:
    """What the driver tells. gpus: empty without a driver or a card."""

    gpus: tuple[Gpu, ...] = ()


def nvidia() -> Nvidia:
    """Ask the driver; never raises."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return Nvidia()
    try:
        return Nvidia(tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())))
    except pynvml.NVMLError:
        return Nvidia()
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(
        index=index,
        name=pynvml.nvmlDeviceGetName(handle),
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        memory_total=int(pynvml.nvmlDeviceGetMemoryInfo(handle).total),
        capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
    )
