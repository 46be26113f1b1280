"""./kit parse as a process of its own, and what it leaves in a folder."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
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


def start(*arguments: object, stderr: int = subprocess.PIPE, **environment: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _ENTRY, str(ROOT / "scripts"), "parse", *map(str, arguments), *QUICK]
    kept = {name: value for name, value in os.environ.items() if name not in ("API_BIND", "API_PORT", "PYTHONPATH")}
    return subprocess.Popen(
        argv, env=kept | environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
    )


class Peak(threading.Thread):
    """The greatest memory of a process and its children together, in kB: what several share counts once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.kilobytes, self.ended = pid, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            self.kilobytes = max(self.kilobytes, self._of(self.pid))

    def _of(self, pid: int) -> int:
        try:
            own = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except OSError:  # it has ended
            return 0
        return (int(own[1]) if own else 0) + sum(self._of(int(child)) for child in children)


def parse(
    *arguments: object, stdin: str = "", peaks: list[int] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Until it ends. peaks: gets the memory of the process and its children."""
    with start(*arguments, **environment) as process:
        peak = Peak(process.pid) if peaks is not None else None
        try:
            out, talk = process.communicate(stdin, timeout=120)
        except BaseException:
            process.kill()
            raise
        finally:
            if peak is not None and peaks is not None:
                peak.ended.set()
                peaks.append(peak.kilobytes)
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
