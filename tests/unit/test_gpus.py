"""What ./kit sees of NVIDIA's driver: the real NVML binding, a stand-in for the library behind it, machine after machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nvml
import pytest
from kit.facts import gpus
from support import ROOT

GIB = 2**30


@pytest.mark.parametrize("name", nvml.NAMES)
def test_a_machine_is_seen_as_its_file_says(name: str) -> None:
    machine, seen = nvml.read(name), nvml.load(name)
    cards = machine.get("gpus", [])
    assert (seen.driver, len(seen.gpus)) == (machine.get("driver"), len(cards))
    assert bool(seen.problem) == bool(seen.cause) == ("driver" not in machine)
    if seen.driver:
        assert seen.cuda is not None and seen.cuda[0] * 1000 + seen.cuda[1] * 10 == machine["cuda"]
    for index, (card, gpu) in enumerate(zip(cards, seen.gpus, strict=True)):
        told = {key: value for key, value in card.items() if not (isinstance(value, dict) and "error" in value)}
        assert gpu.index == index
        assert (gpu.name, gpu.uuid) == (told.get("name", ""), told.get("uuid", ""))
        assert gpu.capability == tuple(told.get("capability", (0, 0)))
        memory = told.get("memory", {"total_mib": 0})
        taken = memory.get("used_mib", 0) + memory.get("reserved_mib", 0)
        assert gpu.memory_total == memory["total_mib"] * 2**20
        assert gpu.memory_free == (memory["total_mib"] - taken) * 2**20
        assert gpu.mig_enabled == bool(told.get("mig_mode"))
        assert [instance.uuid for instance in gpu.mig] == [i["uuid"] for i in told.get("mig", []) if i]
        holders = [*told.get("compute", []), *told.get("graphics", [])]
        assert {(p.pid, p.memory) for p in gpu.processes} == {(h["pid"], h["mib"] * 2**20) for h in holders}


def test_every_machine_says_where_it_is_from() -> None:
    assert len(nvml.NAMES) >= 12
    for name in nvml.NAMES:
        assert nvml.read(name)["about"].startswith(("Composed from published figures", "Recorded 20")), name


@pytest.mark.parametrize(
    ("name", "cause", "words"),
    [
        ("no-driver", "no-library", "no NVIDIA driver is installed"),
        ("driver-not-loaded", "not-loaded", "kernel module is not loaded"),
        ("nvml-mismatch", "mismatch", "driver/library version mismatch"),
        ("no-permission", "no-permission", "may not talk to the NVIDIA driver"),
    ],
)
def test_why_nothing_is_known(name: str, cause: str, words: str) -> None:
    seen = nvml.load(name)
    assert seen.cause == cause and words in seen.problem


def test_an_error_that_is_none_of_the_usual_keeps_nvmls_words() -> None:
    seen = nvml.load({"init": {"error": "OPERATING_SYSTEM"}})
    assert seen.cause == "error" and "operating system" in seen.problem.lower()


def test_mig_instances_are_named_by_their_profile() -> None:
    (gpu,) = nvml.load("h100-mig").gpus
    assert [(i.name, i.memory_total >> 20) for i in gpu.mig] == [("3g.40gb", 40448), ("1g.10gb", 9984), ("1g.10gb", 9984)]
    assert gpu.mig[1].memory_free < gpu.mig[2].memory_free


def test_a_call_that_is_not_supported_costs_only_its_answer() -> None:
    (gpu,) = nvml.load("wsl2-rtx4070-laptop").gpus
    assert gpu.name == "NVIDIA GeForce RTX 4070 Laptop GPU" and not gpu.processes_known and gpu.memory_free > 6 * GIB
    (gpu,) = nvml.load("dgx-spark-gb10").gpus
    assert gpu.capability == (12, 1) and gpu.memory_total == 0
    (slice_,) = nvml.load("h100-mig-container").gpus
    assert slice_.memory_total == 0 and slice_.mig[0].memory_total > 39 * GIB


def test_a_lost_card_costs_no_other() -> None:
    good, lost = nvml.load("card-lost").gpus
    assert good.name == "NVIDIA A10" and good.problem == ""
    assert "lost" in lost.problem and lost.capability == (0, 0)


def test_drivers_that_lack_newer_calls() -> None:
    (gpu,) = nvml.load("driver-r470").gpus
    assert gpu.processes_known and gpu.processes[0].memory == 2998 * 2**20
    without_libcuda = {**nvml.read("rtx4090"), "cuda_v2": {"error": "LIBRARY_NOT_FOUND"}}
    assert nvml.load(without_libcuda).cuda == (12, 8)


def test_who_holds_a_card_is_named_where_it_is_visible() -> None:
    machine = nvml.read("rtx4090")
    machine["gpus"][0]["compute"] = [{"pid": os.getpid(), "mib": 900}, {"pid": 4194403, "mib": None}]
    (gpu,) = nvml.load(machine).gpus
    assert gpu.processes[0].pid == os.getpid() and gpu.processes[0].memory == 900 * 2**20
    assert gpu.processes[0].name.startswith(("python", "pytest"))
    assert {(p.name, p.memory) for p in gpu.processes if p.pid > 4194402} == {("", None)}


def test_a_driver_that_hangs_is_left_behind() -> None:
    seen = nvml.load({"init": "hang"}, timeout=0.5)
    assert (seen.cause, seen.problem) == ("no-answer", "the NVIDIA driver did not answer within 0.5 s")


def test_a_library_that_breaks_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    seen = gpus.nvidia()
    assert seen.cause == "error" and seen.gpus == ()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert gpus.nvidia().cause == "error"


@pytest.mark.parametrize("name", ["h100-mig", "wsl2-rtx4070-laptop", "gpu-full", "no-driver", "nvml-mismatch", "card-lost"])
def test_what_is_recorded_plays_as_it_was(name: str) -> None:
    argv = [sys.executable, Path(nvml.__file__).with_name("record.py")]
    done = subprocess.run(
        argv, env=os.environ | nvml.nvml_environment(name), capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert nvml.load(json.loads(done.stdout)) == nvml.load(name)
