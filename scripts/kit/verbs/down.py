"""./kit down: stop whatever runs."""

from __future__ import annotations

import argparse
import os

from kit import console
from kit.catalog.settings import Settings
from kit.paths import ROOT
from kit.stack.choose import possible
from kit.verbs.arguments import Verbs


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("down", help="stop the service; leaves no process and no port")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    settings = Settings(ROOT, os.environ)
    stopped = [name for stack in possible(settings) for name in stack.down()]
    console.say(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")
