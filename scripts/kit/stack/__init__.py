"""The running thing. compose.py (Docker) and local.py (processes) offer the same calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kit.stack.images import Image

API, VLM = "paddleocr-vl-api", "paddleocr-vlm-server"
SERVICES = (VLM, API)  # in the order in which they come up

Report = Callable[[str], None]


@dataclass(frozen=True)
class Service:
    """One service as it is now.

    state: "absent" (never started), "starting", "ready", "unhealthy" or "exited".
    seconds: since its start, None when it does not run. detail: pid or container,
    or the exit status. last_line: of its log, "" when there is none.
    """

    name: str
    state: str
    seconds: float | None = None
    detail: str = ""
    last_line: str = ""
    restarts: int = 0  # by Docker, after it died

    @property
    def runs(self) -> bool:
        return self.state in ("starting", "ready", "unhealthy")


def plain_lines(text: str) -> list[str]:
    """The lines of a log that say something, without the colours that PaddleX writes even into files."""
    return [line for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines() if line.strip()]


class Stack(Protocol):
    """What the verbs need of a stack."""

    label: str  # what it is, in words

    @property
    def url(self) -> str:
        """Where the API answers, without a path."""

    def up(self, report: Report) -> None:
        """Start what does not run; returns as soon as it is started. report: progress, a line each."""

    def down(self) -> list[str]:
        """Stop everything; the names of what was running."""

    def ps(self) -> list[Service]:
        """Every service as it is now, in the order of SERVICES."""

    def is_current(self) -> bool:
        """False when what runs was started from another configuration than the present one."""

    def images(self) -> list[Image]:
        """What the containers run, in the order of SERVICES; empty where there are none."""

    def tail(self, service: str, lines: int) -> list[str]:
        """The last lines of a service's log, oldest first."""

    def follow(self, service: str) -> Iterator[str]:
        """Lines of a service's log as they come; ends when the service does."""
