"""./kit status: what runs, and whether it is ready."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import asdict

from kit import console, health
from kit.catalog.settings import Settings
from kit.errors import ExitCode
from kit.paths import ROOT, SAMPLE
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
    page = health.deep(stack.url, SAMPLE) if stack and serving and arguments.deep else None
    if arguments.json:
        report = {
            "stack": stack.label if stack else None,
            "url": stack.url if stack else None,
            "ready": serving,
            "services": [asdict(service) for service in services],
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
        if page:
            console.data(f"a page was parsed in {page.seconds:.1f} s")
    return ExitCode.OK if serving else ExitCode.START
