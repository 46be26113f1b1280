"""From nothing to a service that has parsed a page; whatever fails on the way leaves nothing running."""

from __future__ import annotations

import time
from pathlib import Path

from kit import console, health
from kit.api import ServiceError
from kit.diagnose import explain
from kit.errors import ExitCode, KitError
from kit.health import Page
from kit.stack import Service, Stack

POLL = 0.3  # seconds
LOG_LINES = 12  # of a service that died


def bring_up(stack: Stack, sample: Path, timeout: float) -> Page:
    """Start `stack`, wait until it parses `sample`; return the page.

    timeout: seconds from the start of the services to the first page.
    Raises KitError (START) as soon as a service dies, with its last lines.
    """
    try:
        with console.Board() as board:
            stack.up(board.note)
            return _wait(stack, board, sample, timeout)
    except BaseException:
        if stopped := stack.down():
            console.say(f"stopped: {', '.join(stopped)}")
        raise


def _wait(stack: Stack, board: console.Board, sample: Path, timeout: float) -> Page:
    start = time.monotonic()
    while True:
        services = stack.ps()
        board.show(services)
        for service in services:
            # Docker would restart what dies at its start for ever: once is enough to say so.
            if service.state == "exited" or (service.restarts and service.state != "ready"):
                raise died(stack, service)
        if all(service.state == "ready" for service in services):
            break
        if time.monotonic() - start > timeout:
            late = next(service for service in services if service.state != "ready")
            raise KitError(
                f"{late.name} is not ready after {timeout:.0f} s",
                "give it longer: ./kit up --timeout SECONDS",
                ExitCode.START,
                detail=tuple(stack.tail(late.name, LOG_LINES)),
            )
        time.sleep(POLL)
    board.note("parsing a page to see that it truly works")
    try:
        return health.deep(stack.url, sample, max(timeout - (time.monotonic() - start), health.DEEP_TIMEOUT))
    except KitError as error:
        raise explained(stack, error) from error


def died(stack: Stack, service: Service) -> KitError:
    """The error for a service that ended by itself: its last lines, and the cause where it is known."""
    lines = stack.tail(service.name, 200)
    known = explain(lines)
    return KitError(
        f"{service.name} died ({service.detail})" + (f": {known.cause}" if known else ""),
        known.fix if known else "its last lines stand above; all of it: the folder .kit/logs",
        ExitCode.START,
        detail=tuple(lines[-LOG_LINES:]),
    )


def explained(stack: Stack, error: KitError) -> KitError:
    """`error` with the cause that the services' logs show, where the server hid it behind a 5xx and it is a known one."""
    if not isinstance(error, ServiceError) or error.status < 500:
        return error
    for service in stack.ps():
        known = explain(_since_success(stack.tail(service.name, 100)))
        if known:
            return KitError(f"{error.message}: {known.cause}", known.fix, error.code, error.detail)
    return error


def _since_success(lines: list[str]) -> list[str]:
    """The lines after the last page that was parsed: what stands before is another request's trouble."""
    good = [number for number, line in enumerate(lines) if "POST /layout-parsing" in line and " 200" in line]
    return lines[good[-1] + 1 :] if good else lines
