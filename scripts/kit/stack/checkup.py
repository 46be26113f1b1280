"""Everything that ./kit health looks at, in its order: until something is wrong there is no point in what comes after."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kit import health, probe, testpage
from kit.api import ServiceError
from kit.diagnose import diagnose
from kit.errors import ExitCode, KitError
from kit.health import Health, Reach, Wiring
from kit.probe import Probe
from kit.stack import API, VLM, Service, Stack, inside, logs, start


@dataclass(frozen=True)
class Checkup:
    """health: the verdict. What was seen on the way; None where it was not looked at. blind: why the VLM was not."""

    health: Health
    url: str
    stack: str = ""
    services: tuple[Service, ...] = ()
    wiring: Wiring | None = None
    reach: Reach | None = None
    blind: str = ""
    probe: Probe | None = None

    def as_json(self, now: float) -> dict[str, Any]:
        """For programs. now: seconds since the epoch; ages are counted from it. The API's key for the VLM is left out."""
        vlm = None
        if self.wiring:
            vlm = {key: value for key, value in asdict(self.wiring).items() if key != "api_key"}
            vlm |= {"seen_from": "the API", "served": list(self.reach.served) if self.reach else None}
        page = None
        if self.probe:
            result = self.probe.result
            page = {"sent": self.probe.sent, "held_back": self.probe.held, "next_in_seconds": self.probe.next_in}
            page |= asdict(result) | {"age_seconds": round(now - result.at, 1)} if result else {"outcome": None}
        return {
            "healthy": self.health.healthy,
            "verdict": self.health.verdict,
            "summary": self.health.summary,
            "hint": self.health.hint,
            "exit_code": int(self.health.code),
            "url": self.url,
            "stack": self.stack or None,
            "services": {service.name: service.state for service in self.services},
            "vlm": vlm,
            "vlm_not_seen": self.blind or None,
            "page": page,
        }


def of_url(url: str, run: Path, *, deep: bool, timeout: float) -> Checkup:
    """Of a service of which only the address is known: its VLM shows in a deep probe alone."""
    blind = "only the service's own host sees its VLM; --deep shows whether it works"
    if not health.answers(f"{url}/health"):
        return Checkup(_api_dead(url), url, blind=blind)
    if not deep:
        return Checkup(Health("healthy", f"healthy: {url} answers; {blind}"), url, blind=blind)
    return _deep(Checkup(Health("healthy", ""), url, blind=blind), run, None, timeout)


def of_stack(stack: Stack, run: Path, *, deep: bool, timeout: float) -> Checkup:
    """Of the service that runs here. run: .kit/run."""
    services = tuple(stack.ps())
    seen = Checkup(Health("healthy", ""), stack.url, stack.label, services)
    # A setup of the API alone has no VLM server of its own.
    by_name = {VLM: Service(VLM, "absent")} | {service.name: service for service in services}
    if not by_name[API].runs:
        return replace(seen, health=_down(stack, by_name[API], by_name[VLM]))
    if not health.answers(f"{stack.url}/health"):
        if by_name[API].state == "starting":
            return replace(seen, health=Health("starting", "the API is starting", "./kit logs -f", ExitCode.START))
        return replace(seen, health=_api_dead(stack.url))
    try:
        wired = inside.wiring_of(stack)
        reached = inside.reach(stack, wired) if wired.server_url else None
        seen = replace(seen, wiring=wired, reach=reached)
        trouble = health.judge_wiring(wired, reached)
    except inside.NotSeen as error:
        seen, trouble = replace(seen, blind=str(error)), None
    if trouble is None and by_name[VLM].state == "exited" and seen.blind:
        trouble = Health("vlm-dead", "the VLM server is down", "./kit status, ./kit up", ExitCode.VLM)
    if trouble:
        return replace(seen, health=_with_cause(stack, trouble))
    if not deep:
        return replace(seen, health=Health("healthy", f"healthy: the API answers{_vlm(seen)}"))
    api_age = by_name[API].seconds
    started = time.time() - api_age if api_age is not None else None
    done = _deep(seen, run, started, timeout)
    result = done.probe.result if done.probe else None
    if result and done.health.verdict == "page-failed":
        error = ServiceError(done.health.summary, done.health.hint, status=result.status)
        known = start.explained(stack, error)
        done = replace(done, health=replace(done.health, summary=known.message, hint=known.hint))
    return done


def _deep(seen: Checkup, run: Path, started: float | None, timeout: float) -> Checkup:
    try:
        found = probe.probe(run, seen.url, started=started, timeout=timeout)
    except KitError as error:
        if error.code != ExitCode.UNREACHABLE:
            raise
        return replace(seen, health=_api_dead(seen.url))
    alive = not (found.sent and found.result and found.result.outcome == "unanswered") or health.answers(f"{seen.url}/health")
    trouble = health.judge_probe(found, alive=alive)
    if trouble:
        return replace(seen, probe=found, health=trouble)
    result = found.result
    assert result is not None
    read = f"a page was read in {result.seconds:.1f} s"
    if not found.sent:
        read = f"a page was read in {result.seconds:.1f} s, {time.time() - result.at:.0f} s ago ({found.held})"
    if not result.word_read:
        read += f"; its text has no “{testpage.WORD}”, so it reads badly"
    return replace(seen, probe=found, health=Health("healthy", f"healthy: the API answers{_vlm(seen)}, {read}"))


def _vlm(seen: Checkup) -> str:
    if seen.wiring and seen.wiring.backend == "native":
        return ", the model runs inside it"
    if seen.reach:
        return f", reaches its VLM ({', '.join(seen.reach.served)})"
    return f" (its VLM was not seen: {seen.blind})" if seen.blind and seen.stack else ""


def _api_dead(url: str) -> Health:
    return Health("api-dead", f"no API answers at {url}", "./kit status; ./kit logs paddleocr-vl-api", ExitCode.UNREACHABLE)


def _down(stack: Stack, service: Service, vlm: Service) -> Health:
    """The API does not run; where it waits for the VLM, the VLM is the one to speak of."""
    if service.state == "absent" and vlm.runs and vlm.state == "starting":
        return Health("starting", "the VLM server is starting, the API waits for it", "./kit logs -f", ExitCode.START)
    culprit = vlm if service.state == "absent" and vlm.state in ("exited", "unhealthy") else service
    detail = f" ({culprit.detail})" if culprit.detail else ""
    return _with_cause(stack, Health("down", f"{culprit.name} is {culprit.state}{detail}", "./kit up", ExitCode.START))


def _with_cause(stack: Stack, trouble: Health) -> Health:
    """`trouble` with the cause that the services' logs show, where it is a known one."""
    found = diagnose({service.name: logs.of_service(stack, service) for service in stack.ps()})
    if not found or found[0].failure.name == "vlm-unreachable":  # which is what is being explained
        return trouble
    known = found[0].failure
    return replace(trouble, summary=f"{trouble.summary}: {known.cause}", hint=known.fix)
