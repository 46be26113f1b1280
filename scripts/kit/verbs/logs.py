"""./kit logs: what the services wrote."""

from __future__ import annotations

import argparse
import os
import threading

from kit import console
from kit.catalog.settings import Settings
from kit.diagnose import diagnose
from kit.errors import ExitCode, KitError
from kit.paths import ROOT
from kit.stack import EVERY, Stack
from kit.stack.choose import active
from kit.stack.local import LocalStack
from kit.verbs.arguments import Verbs, lines


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("logs", help="what the services wrote")
    parser.add_argument("service", nargs="?", choices=EVERY, metavar="SERVICE", help=" or ".join(EVERY))
    parser.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    parser.add_argument("-n", "--lines", type=lines, default=50, metavar="N", help="so many last lines (50)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    stack = active(Settings(ROOT, os.environ))
    if not stack:
        stack = LocalStack(ROOT, Settings(ROOT, os.environ))  # what died has left its logs
        if not any(stack.tail(name, 1) for name in stack.services):
            raise KitError("no service is running, and none has left a log", "./kit up", ExitCode.START)
    names = [arguments.service] if arguments.service else list(stack.services)
    prefix = (lambda name: f"{name} | ") if len(names) > 1 else (lambda name: "")
    shown = {name: stack.tail(name, arguments.lines) for name in names}
    for name, text in shown.items():
        for line in text:
            console.data(prefix(name) + line)
    for finding in diagnose(shown):
        console.known_cause(finding.failure)
    if arguments.follow:
        threads = [threading.Thread(target=_follow, args=(stack, name, prefix(name)), daemon=True) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _follow(stack: Stack, name: str, prefix: str) -> None:
    for line in stack.follow(name):
        console.data(prefix + line)
