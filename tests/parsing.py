"""./kit parse as a process of its own, and what it leaves in a folder."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from kit.batch import folder
from kit.batch.folder import JOURNAL
from kit.batch.inputs import collect
from kit.batch.names import REPORT, STATE
from kit.batch.report import Totals
from kit.batch.run import Run, Service
from kit.batch.watch import Watch
from kit.batch.wish import Wish
from kit.client import Backoff
from support import ROOT

# As ./kit does it, without looking at its environment; and its greatest memory, which exec has set to nothing before.
_ENTRY = """
import os, re, sys
sys.path[0] = sys.argv.pop(1)
from kit.cli import main
code = main()
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
if peak and "PEAK_FILE" in os.environ:
    open(os.environ["PEAK_FILE"], "w").write(peak[1])
sys.exit(code)
"""
QUICK = ("--backoff", "0.02")


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _ENTRY, str(ROOT / "scripts"), "parse", *map(str, arguments), *QUICK]
    kept = {name: value for name, value in os.environ.items() if name not in ("API_BIND", "API_PORT", "PYTHONPATH")}
    return subprocess.Popen(
        argv, env=kept | environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def parse(*arguments: object, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    with start(*arguments, **environment) as process:
        try:
            out, talk = process.communicate(stdin, timeout=120)
        except BaseException:
            process.kill()
            raise
    assert "Traceback" not in talk, talk
    return subprocess.CompletedProcess(process.args, process.returncode, out, talk)


def run_here(
    out: Path, url: str, *inputs: Path | str, patience: float = 60, never: bool = False, concurrency: int = 8, **wishes: Any
) -> Totals:
    """A run in this process, with pauses that are no longer than a test can wait."""
    wish, found = Wish(**wishes), collect([str(one) for one in inputs], [], out)
    service = Service(url, concurrency=concurrency, backoff=Backoff(0.001, 0.01, never), patience=patience)
    with folder.opened(out, wish, found, resume=True) as journal:
        return asyncio.run(Run(service, found, out, out / STATE, wish, journal, Watch()).run())


def files(folder: Path) -> dict[str, bytes]:
    """Every file of an output, without the state of the run."""
    there = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in there if STATE not in path.relative_to(folder).parts}


def report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / REPORT).read_text())


def journal(folder: Path) -> list[dict[str, Any]]:
    """The whole lines; none where there is no journal yet."""
    try:
        lines = (folder / STATE / JOURNAL).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith(b"\n")]
