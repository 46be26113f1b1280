"""./kit doctor: is this machine ready, and what to do where it is not."""

from __future__ import annotations

import argparse
import json
import os

from kit import console, doctor
from kit.catalog.settings import Settings
from kit.doctor.look import TIMEOUT, look
from kit.errors import ExitCode
from kit.paths import ROOT
from kit.verbs.arguments import Verbs, seconds


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("doctor", help="is this machine ready: for the GPU stack, for the preview only, or not")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--offline", action="store_true", help="ask nothing of the network")
    parser.add_argument(
        "--timeout", type=seconds, default=TIMEOUT, metavar="SECONDS", help="for each single answer (default: %(default)g)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    facts, checks, wanted = look(Settings(ROOT, os.environ), offline=arguments.offline, timeout=arguments.timeout)
    if arguments.json:
        console.data(json.dumps(doctor.as_json(facts, checks, wanted), indent=1))
    else:
        console.data(doctor.as_text(checks, wanted))
    return doctor.EXIT[doctor.verdict(checks)]
