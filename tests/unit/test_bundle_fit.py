"""Does a host fit a bundle? What a bundle asks for comes from its tags; the hosts are recorded or composed machines."""

from __future__ import annotations

import nvml
import pytest
from kit.bundle.fit import misfits
from kit.bundle.wanted import requires
from kit.catalog import images
from kit.facts.gpus import Nvidia


@pytest.mark.parametrize("family", images.FAMILIES, ids=lambda family: family.tag)
def test_every_official_tag_says_what_it_needs(family: images.Family) -> None:
    needs = requires(family.tag, "vllm")
    assert needs and needs.driver and needs.capabilities
    assert ("12.0" in needs.capabilities) is (family.build == images.BLACKWELL)
    assert ("8.6" in needs.capabilities) is (family.build == images.DEFAULT)


def test_a_tag_of_one_s_own_asks_for_nothing() -> None:
    assert requires("my-mirror-1", "vllm") is None
    assert misfits(None, Nvidia(problem="no driver")) == []


@pytest.mark.parametrize(
    ("machine", "tag", "part"),
    [
        ("rtx4090", "paddleocr3.6-nvidia-gpu-offline", ""),
        ("rtx4090", "latest-nvidia-gpu-sm120-offline", "compute capability 12.0; here: 8.9"),
        ("rtx5090", "latest-nvidia-gpu-sm120-offline", ""),
        ("rtx5090", "paddleocr3.6-nvidia-gpu-offline", "here: 12.0"),
    ],
)
def test_a_host_is_judged_by_its_cards(machine: str, tag: str, part: str) -> None:
    found = misfits(requires(tag, "vllm"), nvml.load(machine))
    assert ("\n".join(found) == "") if not part else part in "\n".join(found)


def test_an_old_driver_and_no_driver_are_told() -> None:
    needs = requires("paddleocr3.6-nvidia-gpu-offline", "vllm")
    fitting = nvml.load("rtx4090")
    (line,) = misfits(needs, Nvidia("535.1", (12, 2), fitting.gpus))
    assert "CUDA 12.2" in line and "12.6" in line and "560" in line
    (line,) = misfits(needs, Nvidia(problem="no driver is loaded"))
    assert "no driver is loaded" in line
