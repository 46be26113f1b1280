"""A changed configuration without a pause: behind the gateway, API after API is replaced while the others go on.

Compose itself would end them all at once. What there is one of, the VLM server and the gateway, is replaced as
Compose does it, and what a client sees then is said before (docs/gateway.md).
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from kit import api, console
from kit.errors import ExitCode, KitError
from kit.gateway import settings as gateway_settings
from kit.stack import API, GATEWAY, VLM, start
from kit.stack.compose import ComposeStack, failed

POLL = 0.5  # seconds
REPLACE, START, STOP = "replace", "start", "stop"


@dataclass(frozen=True)
class Step:
    """What to do, to which service. container: the one that goes; empty where there is none to name."""

    do: str
    service: str
    container: str = ""


def steps(there: Mapping[str, Sequence[str]], outdated: Mapping[str, Sequence[str]], wanted: int) -> list[Step]:
    """The way to the present configuration, with never fewer APIs than before or than wanted. Pure.

    there, outdated: containers by service, the oldest first. wanted: how many APIs.
    """
    found = [Step(REPLACE, VLM, one) for one in outdated.get(VLM, ())]
    running, old = list(there.get(API, ())), list(outdated.get(API, ()))
    count = len(running)
    for container in old:
        if count <= wanted:
            found.append(Step(START, API))
            count += 1
        found.append(Step(STOP, API, container))
        count -= 1
    found += [Step(START, API)] * (wanted - count)
    kept = [container for container in running if container not in old]
    found += [Step(STOP, API, container) for container in kept[wanted:]]
    return found + [Step(REPLACE, GATEWAY, one) for one in outdated.get(GATEWAY, ())]


def can_roll(stack: ComposeStack) -> bool:
    """True where a gateway answers, every service that there is to be is there, and those that are to stay are ready."""
    if not stack.gateway or set(stack.containers()) != set(stack.services) or _states(stack) is None:
        return False
    outdated = stack.outdated()
    return all(service.state == "ready" or outdated[service.name] for service in stack.ps())


def roll(stack: ComposeStack, timeout: float) -> None:
    """Bring what runs to the present configuration. timeout: seconds for a container to become healthy.

    Raises KitError (START) when a new one does not; it is removed then, and the old ones go on.
    """
    there = {name: [one["Id"] for one in found] for name, found in stack.containers().items()}
    outdated = {name: [one["Id"] for one in found] for name, found in stack.outdated().items()}
    for step in steps(there, outdated, stack.wanted_counts()[API]):
        if step.do == START:
            console.say("starting an API of the present configuration beside the others")
            _start_one(stack, timeout)
        elif step.do == STOP:
            console.say(f"stopping API {step.container[:12]}: what it is reading comes to its end, or is read again elsewhere")
            _change(stack, ["docker", "stop", "-t", str(_stop_seconds(stack)), step.container])
            _change(stack, ["docker", "rm", "--volumes", step.container])
        else:
            console.say(_WARNING[step.service])
            _change(stack, stack.argv("up", "--detach", "--no-deps", "--force-recreate", step.service))
            _wait(stack, step.service, None, timeout)


_WARNING = {
    VLM: "replacing the VLM server, of which there is one: requests wait for it, and get 503 after GATEWAY_OUTAGE_SECONDS",
    GATEWAY: "replacing the gateway, of which there is one: what runs in it comes to its end; until the new one listens, "
    "connections are refused",
}


def _start_one(stack: ComposeStack, timeout: float) -> None:
    before = [one["Id"] for one in stack.containers().get(API, ())]
    scale = f"{API}={len(before) + 1}"
    _change(stack, stack.argv("up", "--detach", "--no-deps", "--no-recreate", "--scale", scale, API))
    (new,) = (one["Id"] for one in stack.containers()[API] if one["Id"] not in before)
    try:
        _wait(stack, API, new, timeout)
    except BaseException:
        _change(stack, ["docker", "rm", "--force", "--volumes", new])
        console.say("the new one was removed; the others go on in the old configuration")
        raise


def _wait(stack: ComposeStack, service: str, container: str | None, timeout: float) -> None:
    """Until it is healthy; an API also until the gateway gives it pages. container: None for the only one of its service."""
    end = time.monotonic() + timeout
    while True:
        (found,) = (one for one in stack.containers()[service] if container in (None, one["Id"]))
        seen = stack.service(service, found)
        if seen.state == "exited" or (seen.restarts and seen.state != "ready"):
            raise start.died(stack, seen)
        if seen.state == "ready" and (service != API or _is_given_pages(stack, found)):
            return
        if time.monotonic() > end:
            raise KitError(
                f"{service} is not ready after {timeout:.0f} s", "give it longer: ./kit up --timeout SECONDS", ExitCode.START,
                detail=tuple(stack.tail(service, start.LOG_LINES)),
            )  # fmt: skip
        time.sleep(POLL)


def _stop_seconds(stack: ComposeStack) -> int:
    """What a range may take in one API. PaddleX ends at once when it has nothing to read."""
    names = ("GATEWAY_RANGE_SECONDS", "GATEWAY_PAGE_SECONDS", "GATEWAY_PAGES_PER_RANGE")
    given = {name: stack.settings.gateway[name] for name in names if name in stack.settings.gateway}
    settings = gateway_settings.load(["--replica", "http://api"], given)
    return math.ceil(settings.seconds_for(settings.pages_per_range))


def _is_given_pages(stack: ComposeStack, container: Mapping[str, Any]) -> bool:
    states = _states(stack)
    if not states:  # the gateway does not tell them without a key; its next look-up of the name finds the new one
        return states is not None
    addresses = {network["IPAddress"] for network in container["NetworkSettings"]["Networks"].values()}
    return any(name.rpartition(":")[0] in addresses and state == "up" for name, state in states.items())


def _states(stack: ComposeStack) -> dict[str, str] | None:
    """The replicas as the gateway sees them; empty where it does not tell; None where it does not answer."""
    url = f"{stack.url}/ready"
    try:
        with api.client(url, 5.0) as http:
            body = http.get(url).json()
        return {one["name"]: one["state"] for one in body.get("replicas", ())}
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _change(stack: ComposeStack, argv: list[str]) -> None:
    console.echo(argv)
    done = subprocess.run(argv, cwd=stack.root, text=True, capture_output=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise failed(" ".join(argv[:2]), done.stderr.splitlines())
