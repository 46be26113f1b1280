"""Is this machine ready? From facts to checks and a verdict. Pure: kit.facts.survey asks, this judges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from kit.catalog import images, requirements
from kit.doctor import cards, engine, host, network
from kit.doctor.check import EVERYTHING, FAILED, GPU_STACK, MARKS, PREVIEW, Check
from kit.errors import ExitCode
from kit.facts.survey import Facts

READY, PREVIEW_ONLY, NOT_READY = "ready", "preview-only", "not-ready"
WORDS = {READY: "ready", PREVIEW_ONLY: "ready for the CPU preview only", NOT_READY: "not ready"}
EXIT = {READY: ExitCode.OK, PREVIEW_ONLY: ExitCode.PREVIEW_ONLY, NOT_READY: ExitCode.ENVIRONMENT}


@dataclass(frozen=True)
class Wanted:
    """What .env asks of the machine. preview_bytes: disk that the preview still needs. configured: there is a .env."""

    registry: str
    api_tag: str
    vlm_tag: str
    backend: str
    preview_bytes: int
    configured: bool = False

    @property
    def image_names(self) -> tuple[str, str]:
        """As compose.yaml puts them together."""
        return (
            f"{self.registry}/paddleocr-vl:{self.api_tag}",
            f"{self.registry}/paddleocr-genai-{self.backend}-server:{self.vlm_tag}",
        )

    @property
    def models_inside(self) -> bool:
        """Do both images carry their models?"""
        return all((tag := images.read(name)) is not None and tag.offline for name in (self.api_tag, self.vlm_tag))


def examine(facts: Facts, wanted: Wanted) -> list[Check]:
    """Every check, in the order in which one would mend them."""
    backend = cards.backend_of(wanted.backend)
    missing = not set(wanted.image_names) <= set(facts.images)
    size = requirements.image_bytes(wanted.api_tag, wanted.vlm_tag, wanted.backend)
    running = any(port.ours for port in facts.ports)
    return [
        host.system(facts.machine, facts.engine),
        host.ram(facts.machine),
        cards.driver(facts.nvidia, facts.machine),
        *cards.cards(facts.nvidia, facts.machine, backend),
        cards.room(facts.nvidia, facts.machine, backend, running=running),
        engine.docker(facts.docker, facts.machine),
        engine.toolkit(facts.toolkit, facts.engine, facts.machine, cards=bool(facts.nvidia.gpus)),
        host.image_disk(facts.engine, facts.image_space, size, missing),
        host.preview_disk(facts.project_space, wanted.preview_bytes),
        *(host.port(port, containers=facts.docker.usable) for port in facts.ports),
        network.proxies(facts.proxies, facts.engine),
        network.registry(facts.registry, facts.engine, missing),
        network.hubs(facts.hubs, facts.proxies, offline_images=wanted.models_inside),
    ]


def verdict(checks: Iterable[Check]) -> str:
    """READY, PREVIEW_ONLY or NOT_READY, by what the failed checks block."""
    blocked = {check.blocks for check in checks}
    if not blocked & {GPU_STACK, EVERYTHING}:
        return READY
    return NOT_READY if blocked & {PREVIEW, EVERYTHING} else PREVIEW_ONLY


def next_command(judged: str, wanted: Wanted) -> str:
    """What to type after that verdict."""
    ready = "./kit up" if wanted.configured else "./kit configure"
    return {READY: ready, PREVIEW_ONLY: "./kit up --preview", NOT_READY: "./kit doctor"}[judged]


def as_json(facts: Facts, checks: list[Check], wanted: Wanted) -> dict[str, Any]:
    """For programs: the verdict, each check, and the facts behind them."""
    judged = verdict(checks)
    return {
        "verdict": judged,
        "exit_code": int(EXIT[judged]),
        "next": next_command(judged, wanted),
        "checks": [asdict(check) for check in checks],
        "facts": asdict(facts),
    }


def as_text(checks: list[Check], wanted: Wanted) -> str:
    """For people; the last line says what to type next."""
    lines = []
    for check in checks:
        lines.append(f"{MARKS[check.status]} {check.title}: {check.found}")
        lines.append(f"    needed: {check.needed}; why: {check.why}")
        lines += [f"    hint: {check.hint}"] if check.hint else []
    judged = verdict(checks)
    first = f"mend what is marked {MARKS[FAILED]}, then " if judged == NOT_READY else ""
    last = f"{WORDS[judged]}; next: {first}{next_command(judged, wanted)}"
    return "\n".join([*lines, "", last])
