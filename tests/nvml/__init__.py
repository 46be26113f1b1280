"""A stand-in for NVIDIA's libnvidia-ml.so.1, compiled from fake_nvml.c, that plays a machine of tests/machines.

    kit("doctor", **nvml_environment("rtx4090"))      any child process: the real binding finds the stand-in
    load("rtx4090")                                   what kit.facts.gpus.nvidia() sees

tests/machines/README.md says what is in a machine's file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pynvml
import pytest
from kit.facts import gpus
from support import skip

HERE = Path(__file__).resolve().parent
MACHINES = HERE.parent / "machines"
NAMES = sorted(path.stem for path in MACHINES.glob("*.json"))
MIB = 2**20


def nvml_environment(machine: str | dict[str, Any]) -> dict[str, str]:
    """Environment variables under which a child process sees that machine: its name, or what would be in its file.

    LD_LIBRARY_PATH is read when a program starts, so it does nothing for a process that runs already.
    """
    recorded = read(machine) if isinstance(machine, str) else machine
    folder = _folder()
    if recorded.get("library") == "absent":
        # Not a library at all, so that a real one elsewhere on this machine is not found instead.
        return {"LD_LIBRARY_PATH": _path(folder / "absent"), "FAKE_NVML_MACHINE": ""}
    text = "".join(f"{line}\n" for line in _lines(recorded))
    flat = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.machine"
    flat.write_text(text)
    return {"LD_LIBRARY_PATH": _path(_library()), "FAKE_NVML_MACHINE": str(flat)}


def load(machine: str | dict[str, Any], timeout: float = gpus.TIMEOUT) -> gpus.Nvidia:
    """What `kit.facts.gpus.nvidia()` sees of that machine, through the real binding."""
    with pytest.MonkeyPatch.context() as patch:  # nvidia() asks in a child process, which inherits this
        for name, value in nvml_environment(machine).items():
            patch.setenv(name, value)
        return gpus.nvidia(timeout)


def read(machine: str) -> dict[str, Any]:
    """The file of a machine."""
    return json.loads((MACHINES / f"{machine}.json").read_text())


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fake-nvml-")  # removed when the tests end


def _folder() -> Path:
    folder = Path(_temporary().name)
    (folder / "absent").mkdir(exist_ok=True)
    (folder / "absent" / "libnvidia-ml.so.1").write_bytes(b"not a library\n")
    return folder


@functools.cache
def _library() -> Path:
    compiler = shutil.which("cc")
    if not compiler:
        skip("needs a C compiler (cc) for the stand-in of NVIDIA's library")
    folder = _folder() / "library"
    folder.mkdir()
    library = folder / "libnvidia-ml.so.1"
    argv = [compiler, "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([*argv, "-o", str(library), str(HERE / "fake_nvml.c")], check=True)
    return folder


def _path(folder: Path) -> str:
    rest = os.environ.get("LD_LIBRARY_PATH", "")
    return f"{folder}:{rest}" if rest else str(folder)


def _lines(machine: dict[str, Any]) -> list[str]:
    """The machine in the form that fake_nvml.c reads."""
    lines = [f"init {_value(machine.get('init', 0))}"]
    if "driver" in machine:
        lines += [f"driver {_value(machine['driver'])}", f"cuda {_value(machine['cuda'])}"]
        lines += [f"cuda_v2 {_value(machine.get('cuda_v2', machine['cuda']))}"]
    cards = machine.get("gpus", [])
    lines += [f"count {len(cards)}"]
    for index, card in enumerate(cards):
        lines += [f"{index}/{key} {value}" for key, value in _card(card)]
    return lines


def _card(card: dict[str, Any]) -> list[tuple[str, str]]:
    fields = [
        (key, _value(card[key])) for key in ("handle", "name", "uuid", "capability", "mig_mode", "mig_slots") if key in card
    ]
    fields.append(("memory", _memory(card["memory"])))
    for kind in ("compute", "graphics"):
        listed = _processes(card.get(kind, []))
        # Drivers before R510 lack the third version of the calls; the binding then finds no such function.
        missing = f"!{pynvml.NVML_ERROR_FUNCTION_NOT_FOUND}" if card.get("before_r510") else listed
        fields += [(kind, missing), (f"{kind}_v2", listed)]
    for slot, instance in enumerate(card.get("mig", [])):
        if instance:
            fields += [(f"mig/{slot}/{key}", _value(instance[key])) for key in ("name", "uuid")]
            fields.append((f"mig/{slot}/memory", _memory(instance["memory"])))
    return fields


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return f"!{getattr(pynvml, 'NVML_ERROR_' + value['error'])}"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _memory(memory: dict[str, Any]) -> str:
    """Since R510 the first version of nvmlMemory_t counts what the driver reserves as used."""
    if "error" in memory:
        return _value(memory)
    total, used = memory["total_mib"], memory.get("reserved_mib", 0) + memory.get("used_mib", 0)
    return " ".join(str(round(size * MIB)) for size in (total, total - used, used))


def _processes(listed: Any) -> str:
    if isinstance(listed, dict):
        return _value(listed)
    return " ".join(f"{entry['pid']}:{'-' if entry['mib'] is None else round(entry['mib'] * MIB)}" for entry in listed)
