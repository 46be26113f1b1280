"""./kit test: the tests."""

from __future__ import annotations

import argparse

from kit import testing
from kit.paths import ROOT
from kit.verbs.arguments import Verbs


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("test", help="run the tests that this machine can run")
    parser.add_argument("pytest_arguments", nargs=argparse.REMAINDER, metavar="…", help="passed on to pytest")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    return testing.run(ROOT, arguments.pytest_arguments)
