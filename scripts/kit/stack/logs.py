"""The logs of this clone's services, running or dead."""

from __future__ import annotations

from kit.catalog.settings import Settings
from kit.diagnose import since_serving
from kit.stack import Service, Stack
from kit.stack.choose import active
from kit.stack.local import LocalStack

LINES = 2000  # of each log


def of_services(settings: Settings, lines: int = LINES) -> dict[str, list[str]]:
    """Service → its last lines, as `./kit logs SERVICE -n 2000` shows them; of the last run where nothing runs.

    See of_service for what is added and left out.
    """
    stack = active(settings)
    if not stack:
        return left_behind(settings, lines)
    return {service.name: of_service(stack, service, lines) for service in stack.ps()}


def left_behind(settings: Settings, lines: int = LINES) -> dict[str, list[str]]:
    """Service → the last lines that it left in .kit/logs: of what died as a process, or of an `up` that failed."""
    left = LocalStack(settings.root, settings)
    return {name: left.tail(name, lines) for name in left.services}


def of_service(stack: Stack, service: Service, lines: int = LINES) -> list[str]:
    """The last lines of one service. How a dead one ended stands after them.

    Of one that serves, the lines before it did so are empty: they keep the count and tell of no trouble of today.
    """
    text = stack.tail(service.name, lines)
    if service.state == "ready":
        recent = since_serving(text)
        return [""] * (len(text) - len(recent)) + recent
    if service.state == "exited":
        return [*text, f"{service.name}: {service.detail}"]
    return text
