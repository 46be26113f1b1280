"""./kit lint: what is wrong with the Compose files and configs, before anything is started."""

from __future__ import annotations

import argparse
import difflib
import json
import os
from pathlib import Path

from kit import console
from kit.errors import ExitCode
from kit.facts.gpus import nvidia
from kit.lint import ROUNDS, Finding, Project, Severity, fix, lint, load
from kit.paths import ROOT
from kit.verbs.arguments import Verbs

_STYLE = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "dim"}


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("lint", help="check Compose files, .env and both configs; also those of another folder")
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="folder with a Compose file (default: this project)")
    parser.add_argument("--fix", action="store_true", help="mend what can be mended with certainty; comments stay")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    # What another folder is meant for is not known: it may run on another machine.
    cards = None if arguments.folder else nvidia()

    def read() -> Project:
        return load(arguments.folder or ROOT, os.environ, nvidia=cards)

    found = lint(read())
    for _ in range(ROUNDS if arguments.fix else 0):
        changed = fix(found)
        for file, (before, after) in changed.items():
            _show_change(file, before, after)
        if not changed:
            break
        found = lint(read())
    if arguments.json:
        console.data(json.dumps([finding.as_dict(shown(finding.place.file)) for finding in found], indent=1, ensure_ascii=False))
    else:
        for finding in found:
            console.data(
                f"{where(finding)}: {finding.severity.value} {finding.rule.id}: {finding.message}\n"
                f"    why: {finding.rule.why}\n"
                f"    mend: {finding.mend}{'  (./kit lint --fix does it)' if finding.edits else ''}\n"
            )
    _summary(found)
    return ExitCode.FAILED if any(finding.severity is Severity.ERROR for finding in found) else ExitCode.OK


def shown(file: Path) -> str:
    """A path as short as it can be from here."""
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)


def where(finding: Finding) -> str:
    return f"{shown(finding.place.file)}:{finding.place.line}"


def _show_change(file: Path, before: str, after: str) -> None:
    console.say(f"mended: {shown(file)}")
    for line in list(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0))[2:]:
        console.say(f"  {line}", {"-": "red", "+": "green"}.get(line[0], "dim"))


def _summary(found: list[Finding]) -> None:
    counts = {severity: sum(finding.severity is severity for finding in found) for severity in Severity}
    if not found:
        console.say("✔ nothing to complain about", "green")
        return
    words = [
        f"{count} {severity.value}{'s' if count > 1 and severity is not Severity.INFO else ''}"
        for severity, count in counts.items()
        if count
    ]
    fixable = sum(bool(finding.edits) for finding in found)
    mends = f"; ./kit lint --fix mends {fixable} of them" if fixable else ""
    worst = next(severity for severity in Severity if counts[severity])
    console.say(", ".join(words) + mends, _STYLE[worst])
