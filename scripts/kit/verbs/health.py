"""./kit health: one line and an exit code, for people and monitors."""

from __future__ import annotations

import argparse
import json
import os
import time

from kit import api, console, probe
from kit.catalog.settings import Settings
from kit.errors import ExitCode
from kit.health import Health
from kit.paths import ROOT
from kit.stack.checkup import Checkup, of_stack, of_url
from kit.stack.choose import active
from kit.verbs.arguments import Verbs, seconds

RUN = ROOT / ".kit" / "run"


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("health", help="does it serve: one line, and an exit code for monitors")
    parser.add_argument("--deep", action="store_true", help="also parse a small page")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--url", help="address of a service (default: the one that runs here)")
    parser.add_argument(
        "--timeout", type=seconds, default=probe.TIMEOUT, metavar="SECONDS", help="limit for the page (default: %(default)g)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    found = look(arguments)
    if arguments.json:
        console.data(json.dumps(found.as_json(time.time()), indent=1))
    else:
        console.data(found.health.summary)
        if found.health.hint:
            console.hint(found.health.hint)
    return found.health.code


def look(arguments: argparse.Namespace) -> Checkup:
    if arguments.url:
        return of_url(api.address(arguments.url), RUN, deep=arguments.deep, timeout=arguments.timeout)
    settings = Settings(ROOT, os.environ)
    stack = active(settings)
    if not stack:
        return Checkup(Health("not-running", "not running", "./kit up starts it", ExitCode.START), settings.api_url)
    return of_stack(stack, RUN, deep=arguments.deep, timeout=arguments.timeout)
