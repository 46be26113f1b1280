"""A changed configuration without a pause, for processes: new APIs and a new gateway, which takes the port over from the old."""

from __future__ import annotations

import time
from collections.abc import Callable

from kit import console, health
from kit.errors import ExitCode, KitError
from kit.stack import API, GATEWAY, VLM, Report, Service, start
from kit.stack.local import GATEWAY_STOP_SECONDS, HOST, STOP_SECONDS, LocalStack

POLL = 0.2  # seconds
OLD = f"{GATEWAY}-1"  # the record of the one that goes


def can_take_over(stack: LocalStack) -> bool:
    """True where a gateway serves, and nothing but the APIs and the gateway is to change."""
    serving = stack.gateway and all(map(stack.runs, (VLM, GATEWAY)))
    return serving and stack.handover is not None and stack.is_current_vlm() and health.answers(f"{stack.url}/ready")


def take_over(stack: LocalStack, report: Report, timeout: float) -> None:
    """Bring what runs to the present configuration. timeout: seconds for all of it.

    Raises KitError (START) when what is new does not serve; it is stopped then, and the old goes on. There is no way back
    once the new gateway has the port: it reads pages, and the old one takes nothing new.
    """
    end = time.monotonic() + timeout
    before = _socket(stack)
    old = [name for name in stack.recorded() if name not in (VLM, GATEWAY)]
    new: list[str] = []
    console.say("starting APIs of the present configuration beside the others")
    try:
        new += stack.start_replicas(stack.prepare(report))
        _until(lambda: all(_answers(stack, name) for name in new), stack, new, end)
        console.say("starting the gateway anew: it takes the port over, and the old one ends what it has begun")
        stack.rename({GATEWAY: OLD})
        stack.start_gateway(new)
        _until(lambda: _socket(stack) != before, stack, [*new, GATEWAY], end)
    except BaseException:
        if _socket(stack) == before:
            if stack.runs(OLD):
                stack.stop([GATEWAY], STOP_SECONDS)
                stack.rename({OLD: GATEWAY})
            stack.stop(new, STOP_SECONDS)
            console.say("what was new was stopped; the others go on in the old configuration")
        else:
            _end(stack, old)
        raise
    try:
        while stack.runs(OLD) and time.monotonic() < end:
            time.sleep(POLL)
    finally:
        _end(stack, old)


def _end(stack: LocalStack, old: list[str]) -> None:
    """The old gateway, which still has its time for what it has begun, and then its APIs."""
    stack.stop([OLD], GATEWAY_STOP_SECONDS)
    stack.stop(old, STOP_SECONDS)
    stack.take()


def _socket(stack: LocalStack) -> tuple[int, int] | None:
    """Of the gateway that has the port: each makes its own."""
    try:
        found = stack.handover.stat() if stack.handover else None
    except OSError:
        return None
    return (found.st_ino, found.st_ctime_ns) if found else None


def _answers(stack: LocalStack, name: str) -> bool:
    return health.answers(f"http://{HOST}:{stack.recorded()[name]['port']}/health")


def _until(condition: Callable[[], bool], stack: LocalStack, started: list[str], end: float) -> None:
    while not condition():
        dead = next((name for name in started if not stack.runs(name)), None)
        if dead:
            service = GATEWAY if dead == GATEWAY else API
            raise start.died(stack, Service(service, "exited", detail=f"pid {stack.recorded()[dead]['pid']}"))
        if time.monotonic() > end:
            raise KitError("the new configuration does not serve in time", "./kit up --timeout SECONDS", ExitCode.START)
        time.sleep(POLL)
