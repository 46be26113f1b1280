"""The machine itself: system, processor, memory."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Machine:
    """system: "Linux", "Darwin". arch: as the kernel names it, such as "x86_64", "aarch64". wsl: Linux inside Windows.

    cores: logical ones that this process may use. memory_total, memory_available: bytes of RAM.
    """

    system: str
    arch: str
    wsl: bool
    cores: int
    memory_total: int
    memory_available: int


def machine() -> Machine:
    """Asks the kernel alone; never raises, never waits."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = psutil.virtual_memory()
    # WSL's kernels call themselves "…-microsoft-standard-WSL2", first versions "…-Microsoft".
    wsl = platform.system() == "Linux" and "microsoft" in platform.release().lower()
    return Machine(platform.system(), platform.machine(), wsl, cores, memory.total, memory.available)
