"""From nothing to a service that has parsed a page; whatever fails on the way leaves nothing running."""

from __future__ import annotations

import time
from pathlib import Path

from kit import console, health
from kit.api import ServiceError
from kit.diagnose import diagnose, explain, since_serving
from kit.errors import ExitCode, KitError
from kit.health import Page
from kit.stack import Service, Stack

POLL = 0.5  # seconds
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
            if service.has_died:
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
    found = diagnose({"log": [*lines, f"{service.name}: {service.detail}"]})
    known = found[0].failure if found else None
    last = lines[-LOG_LINES:]
    evidence = found[0].text if found and found[0].line <= len(lines) - len(last) else ""
    return KitError(
        f"{service.name} died ({service.detail})" + (f": {known.cause}" if known else ""),
        known.fix if known else "its last lines stand above; ./kit diagnose --bundle writes all of it into one file",
        ExitCode.START,
        detail=((evidence[:300], "…") if evidence else ()) + tuple(last),
    )


def explained(stack: Stack, error: KitError) -> KitError:
    """`error` with the cause that the services' logs show, where the server hid it behind a 5xx and it is a known one."""
    if not isinstance(error, ServiceError) or error.status < 500:
        return error
    for service in stack.ps():
        known = explain(since_serving(stack.tail(service.name, 300)))
        if known:
            return KitError(f"{error.message}: {known.cause}", known.fix, error.code, error.detail)
    return error
