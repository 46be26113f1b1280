"""./kit diagnose: from logs to causes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import IO

from kit import console, support
from kit.catalog.settings import Settings
from kit.diagnose import Finding, Unknown, diagnose, unknown_trouble
from kit.errors import ExitCode, KitError
from kit.paths import ROOT
from kit.stack import logs
from kit.verbs.arguments import Verbs

MAX_LINES = 50_000  # the last ones of a file, looked through in some seconds; more is another day's trouble


def add(verbs: Verbs) -> None:
    parser = verbs.add_parser("diagnose", help="from logs to causes, or a support bundle")
    parser.add_argument("file", nargs="?", metavar="FILE", help="a log, or - for stdin (default: the services' own logs)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--bundle", nargs="?", const="", metavar="PATH",
        help="write versions, checks, configuration and logs, secrets removed, into a .zip to send to someone who can help",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> ExitCode:
    if arguments.bundle is not None:
        return _bundle(arguments)
    if arguments.file:
        texts = {arguments.file: _read(arguments.file)}
    else:
        texts = logs.of_services(Settings(ROOT, os.environ))
        if not any(texts.values()):
            raise KitError("no service is running, and none has left a log", "./kit up, or name a file", ExitCode.START)
    found = diagnose(texts)
    unknown = None if found else unknown_trouble(texts)
    if arguments.json:
        console.data(json.dumps(report(found, unknown), indent=1))
    else:
        for finding in found:
            console.data(_shown(finding))
        if unknown:
            console.data(
                f"trouble of an unknown kind\n  {unknown.log}:{unknown.line}: {unknown.text}\n"
                "  hint: ./kit diagnose --bundle writes a file to send to someone who can help"
            )
        elif not found:
            console.data(f"no trouble in {', '.join(texts)}")
    return ExitCode.FAILED if unknown else ExitCode.OK


def report(found: list[Finding], unknown: Unknown | None) -> dict[str, object]:
    """What --json prints: findings with cause, fix, source, evidence; unknown: a line of unknown trouble, or null."""
    entries = []
    for finding in found:
        failure = finding.failure
        evidence = {"log": finding.log, "line": finding.line, "text": finding.text, "times": finding.times}
        entries.append({"name": failure.name, "cause": failure.cause, "fix": failure.fix, "source": failure.source, **evidence})
    return {"findings": entries, "unknown": asdict(unknown) if unknown else None}


def _shown(finding: Finding) -> str:
    times = f"  ({finding.times} lines, the last)" if finding.times > 1 else ""
    return (
        f"{finding.failure.cause}\n"
        f"  {finding.log}:{finding.line}: {finding.text[:300]}{times}\n"
        f"  hint: {finding.failure.fix}\n"
        f"  source: {finding.failure.source}"
    )


def _bundle(arguments: argparse.Namespace) -> ExitCode:
    if arguments.file:
        raise KitError("--bundle takes the services' own logs, not a file", "./kit diagnose --bundle [PATH]", ExitCode.USAGE)
    bundle = support.write(Settings(ROOT, os.environ), Path(arguments.bundle) if arguments.bundle else None)
    if arguments.json:
        console.data(json.dumps({"path": str(bundle.path), "bytes": bundle.size, "files": list(bundle.names)}, indent=1))
    else:
        console.say("\n".join(f"  {name}" for name in bundle.names))
        console.say(f"{bundle.size / 1000:.0f} kB; secrets were removed, but look into it before you send it")
        console.data(str(bundle.path))
    return ExitCode.OK


def _read(name: str) -> list[str]:
    """The last MAX_LINES lines of a file or of stdin; their numbers stay those of the file when it has no more."""
    try:
        if name == "-":
            return _lines(sys.stdin.buffer, "stdin")
        with Path(name).open("rb") as file:
            return _lines(file, name)
    except OSError as error:
        raise KitError(f"{name}: {error.strerror}", "name a log, or - for stdin", ExitCode.INPUT) from None


def _lines(file: IO[bytes], name: str) -> list[str]:
    lines = deque(file, maxlen=MAX_LINES)
    if not lines:
        raise KitError(f"{name} is empty", "./kit logs -n 1000 > FILE takes the services' logs", ExitCode.INPUT)
    if any(b"\0" in line for line in lines):
        raise KitError(f"{name} is no text", "name a log, or - for stdin", ExitCode.INPUT)
    return [line.decode(errors="replace").rstrip("\r\n") for line in lines]
