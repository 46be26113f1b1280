"""Which stack: the one that could run here, the one that runs, the one to start."""

from __future__ import annotations

from kit import console
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts.docker import docker
from kit.facts.gpus import nvidia
from kit.stack import Stack
from kit.stack.compose import ComposeStack
from kit.stack.local import LocalStack

PREVIEW_NOTE = (
    "CPU preview: the real paddlex --serve in front of small stand-in models (PicoDet, PP-OCRv6 small, SLANet). "
    "Real text, but not PaddleOCR-VL and not its accuracy."
)


def possible(settings: Settings) -> list[Stack]:
    """Every stack that could be running here."""
    stacks: list[Stack] = [LocalStack(settings.root, settings)]
    if docker().usable:
        stacks += [ComposeStack(settings.root, settings, preview=preview) for preview in (False, True)]
    return stacks


def active(settings: Settings) -> Stack | None:
    """The stack of which anything runs or has died, if any."""
    return next((s for s in possible(settings) if any(service.state != "absent" for service in s.ps())), None)


def chosen(settings: Settings, *, preview: bool, local: bool, containers: bool) -> Stack:
    """The GPU stack where Docker and an NVIDIA GPU are, else the preview: containers where Docker is, else processes."""
    engine = docker()
    if containers and not engine.usable:
        raise KitError(f"--docker: {engine.problem}", "./kit up --local needs no Docker", ExitCode.ENVIRONMENT)
    if not preview and not local:
        cards = nvidia().gpus
        if cards and engine.usable:
            console.say(f"{len(cards)} × {cards[0].name}, Docker {engine.engine}: starting the GPU stack")
            return ComposeStack(settings.root, settings)
        console.say("no NVIDIA GPU here" if not cards else f"an NVIDIA GPU, but no usable Docker: {engine.problem}")
    console.say(PREVIEW_NOTE)
    if engine.usable and not local:
        return ComposeStack(settings.root, settings, preview=True)
    return LocalStack(settings.root, settings)
