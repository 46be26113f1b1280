"""The running thing. compose.py (Docker) and local.py (processes) offer the same calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kit.stack.images import Image

API, VLM, GATEWAY = "paddleocr-vl-api", "paddleocr-vlm-server", "paddleocr-vl-gateway"
SERVICES = (VLM, API)  # in the order in which they come up
EVERY = (*SERVICES, GATEWAY)  # with those that not each stack has

Report = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """One service as it is now.

    state: "absent" (never started), "starting", "ready", "unhealthy" or "exited".
    seconds: since its start, None when it does not run. detail: pid or container,
    or the exit status. last_line: of its log, "" when there is none. dead: how many of its replicas have ended.
    """

    name: str
    state: str
    seconds: float | None = None
    detail: str = ""
    last_line: str = ""
    restarts: int = 0  # by Docker, after it died
    dead: int = 0

    @property
    def runs(self) -> bool:
        return self.state in ("starting", "ready", "unhealthy")

    @property
    def has_died(self) -> bool:
        """Docker restarts what dies at its start for ever: once is enough to say so."""
        return self.state == "exited" or self.dead > 0 or (self.restarts > 0 and self.state != "ready")


def together(replicas: Sequence[Service]) -> Service:
    """Several replicas as the one service that they are; ready when all of them are."""
    if len(replicas) == 1:
        return replicas[0]
    states = [replica.state for replica in replicas]
    dead = states.count("exited")
    if len(set(states)) == 1:
        state = states[0]
    elif dead or "unhealthy" in states:
        state = "unhealthy"
    else:
        state = "starting"
    seconds = min((replica.seconds for replica in replicas if replica.seconds is not None), default=None)
    said = [replica.detail for replica in replicas if replica.state == state] if dead == len(states) else []
    counted = ", ".join(f"{states.count(one)} {one}" for one in dict.fromkeys(states))
    last = next((replica.last_line for replica in replicas if replica.state != "ready"), replicas[0].last_line)
    detail = "; ".join([f"{len(replicas)} replicas: {counted}", *said])
    return Service(replicas[0].name, state, seconds, detail, last, sum(replica.restarts for replica in replicas), dead)


def plain_lines(text: str) -> list[str]:
    """The lines of a log that say something, without the colours that PaddleX writes even into files."""
    return [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]


class Stack(Protocol):
    """What the verbs need of a stack."""

    label: str  # what it is, in words

    @property
    def services(self) -> tuple[str, ...]:
        """Those of EVERY that it has."""

    @property
    def url(self) -> str:
        """Where the API answers, without a path."""

    def up(self, report: Report) -> None:
        """Start what does not run; returns as soon as it is started. report: progress, a line each."""

    def down(self) -> list[str]:
        """Stop everything; the names of what was running."""

    def ps(self) -> list[Service]:
        """Every service as it is now, in the order of EVERY."""

    def is_current(self) -> bool:
        """False when what runs was started from another configuration than the present one."""

    def images(self) -> list[Image]:
        """What the containers run, in the order of EVERY; empty where there are none."""

    def tail(self, service: str, lines: int) -> list[str]:
        """The last lines of a service's log, oldest first."""

    def follow(self, service: str) -> Iterator[str]:
        """Lines of a service's log as they come; ends when the service does."""
