"""./kit status: what runs, and whether it is ready."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

from kit import console, probe
from kit.catalog.settings import Settings
from kit.diagnose import Finding, diagnose
from kit.errors import ExitCode, KitError
from kit.paths import ROOT
from kit.probe import Result
from kit.stack import Service, Stack, logs
from kit.stack.checkup import of_stack
from kit.stack.choose import active
from kit.verbs.arguments import Verbs


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("status", help="what runs, and whether it is ready")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--deep", action="store_true", help="also parse a page")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    stack = active(Settings(ROOT, os.environ))
    services = stack.ps() if stack else []
    serving = bool(services) and all(service.state == "ready" for service in services)
    page = _page(stack) if stack and serving and arguments.deep else None
    causes = _causes(stack, services) if stack else {}
    if arguments.json:
        report = {
            "stack": stack.label if stack else None,
            "url": stack.url if stack else None,
            "ready": serving,
            "services": [asdict(service) | {"cause": _cause(causes.get(service.name))} for service in services],
            "page_seconds": round(page.seconds, 3) if page else None,
        }
        console.data(json.dumps(report, indent=1))
    elif not stack:
        console.data("not running; ./kit up starts it")
    else:
        console.data(f"{stack.label}  {stack.url}")
        for service in services:
            seconds = f"{service.seconds:.0f} s" if service.seconds is not None else ""
            console.data(f"{service.name:22}{service.state:10}{seconds:>8}  {service.detail}".rstrip())
        for finding in causes.values():
            console.data(f"{finding.log}: {finding.failure.cause}\n  {finding.text[:300]}\n  hint: {finding.failure.fix}")
        if page:
            console.data(f"a page was parsed in {page.seconds:.1f} s")
    return ExitCode.OK if serving else ExitCode.START


def _page(stack: Stack) -> Result:
    """A page, parsed now or not long ago: see kit.probe. Raises KitError when the service does not work."""
    found = of_stack(stack, ROOT / ".kit" / "run", deep=True, timeout=probe.TIMEOUT)
    if not found.health.healthy or not found.probe or not found.probe.result:
        raise KitError(found.health.summary, found.health.hint, found.health.code)
    return found.probe.result


def _causes(stack: Stack, services: list[Service]) -> dict[str, Finding]:
    """Service → the most fundamental known cause in its log, of those that died or are unhealthy."""
    broken = [service for service in services if service.state in ("exited", "unhealthy")]
    found = {service.name: diagnose({service.name: logs.of_service(stack, service)}) for service in broken}
    return {name: findings[0] for name, findings in found.items() if findings}


def _cause(finding: Finding | None) -> dict[str, str] | None:
    return {"cause": finding.failure.cause, "fix": finding.failure.fix, "line": finding.text} if finding else None
