"""Does this host's GPU fit what a bundle carries? Pure."""

from __future__ import annotations

from kit.bundle.manifest import Requires
from kit.doctor.check import dotted, numbers
from kit.facts.gpus import Nvidia


def misfits(requires: Requires | None, nvidia: Nvidia) -> list[str]:
    """Why the images would not run here, a line each; empty where they do, or where that is not known."""
    if requires is None:
        return []
    if nvidia.problem or not nvidia.gpus:
        return [f"no usable NVIDIA GPU here ({nvidia.problem or 'the driver shows no card'}); these images need one"]
    found = []
    if nvidia.cuda and nvidia.cuda < numbers(requires.cuda):
        found.append(
            f"the driver serves CUDA {dotted(nvidia.cuda)}, these images need {requires.cuda}: driver {requires.driver} or newer"
        )
    cards = {dotted(gpu.capability) for gpu in nvidia.gpus}
    if not cards & set(requires.capabilities):
        found.append(
            f"these images run on compute capability {', '.join(requires.capabilities)}; here: {', '.join(sorted(cards))}"
        )
    return found
