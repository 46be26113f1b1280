"""Virtual environments under .kit/, made once, remade when their requirements change.

Standard library only: bootstrap.py runs this before anything is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from kit import wheels
from kit.errors import ExitCode, KitError

STAMP = "kit-stamp.json"
_PIP = ("--no-input", "--disable-pip-version-check", "--progress-bar", "off")
Report = Callable[[str], None]

# Failures of pip that users meet, as (text in pip's output, message, hint); the first that is found counts.
Failures = tuple[tuple[str, str, str], ...]
DISK_FULL = ("No space left on device", "the disk is full", "free some space and run the command again")
UNREACHED = (
    "Retry(total=0,",
    "the package index was not reached",
    "check the network and PIP_INDEX_URL; behind a proxy set HTTPS_PROXY",
)
FORBIDDEN = ("Permission denied", "a file may not be written", "own the folder .kit, or remove it")
_FROM_INDEX: Failures = (
    DISK_FULL,
    UNREACHED,
    (
        "No matching distribution found",
        "the package index has no fitting version of a package, or none was reached",
        "check the network, PIP_INDEX_URL and the Python version (3.10 to 3.14)",
    ),
    ("Could not fetch URL", *UNREACHED[1:]),
    FORBIDDEN,
)
_FROM_WHEELS: Failures = (
    DISK_FULL,
    (
        "No matching distribution found",
        "the bundle's packages do not fit this Python",
        "name another one: KIT_PYTHON=python3.12 ./kit …",
    ),
    (
        "No module named",
        "this Python lacks a part of its standard library",
        "on Debian and Ubuntu: the package python3, not python3-minimal alone",
    ),
    FORBIDDEN,
)


def python_of(venv: Path) -> Path:
    """The interpreter inside a virtual environment."""
    return venv / "bin" / "python"


def is_current(venv: Path, requirements: Path) -> bool:
    """True when `venv` was completed from exactly these requirements and this Python."""
    try:
        stamp = json.loads((venv / STAMP).read_text())
    except (OSError, ValueError):
        return False
    return stamp == _stamp(requirements) and python_of(venv).exists()


def ensure(
    venv: Path, requirements: Path, *, needs_bytes: int, report: Report, carried: Path | None = None, compiled: bool = True
) -> bool:
    """Make `venv` hold exactly what `requirements` pins; True when anything was done.

    carried: a bundle's wheels (kit.wheels), which are then all that it is made from; None asks the package index.
    compiled: whether pip compiles every module, as is right where others than the owner run the programs. It is half
    of pip's work where little of much is used; without it, Python compiles and keeps what is imported.

    An environment counts only once its stamp is written, which is last, so an
    interrupted or failed installation is never taken for a whole one; what it
    left is removed. needs_bytes: free disk space that it takes, in bytes.
    report: called with one line of progress at a time.
    Raises KitError (ENVIRONMENT) when it cannot be made.
    """
    # Scripts in a venv hold its absolute path: resolve links before, not after.
    venv = venv.parent.resolve() / venv.name
    if is_current(venv, requirements):
        return False
    venv.parent.mkdir(parents=True, exist_ok=True)
    with locked(venv.parent / f".{venv.name}.lock", waiting=lambda: report("another ./kit is installing; waiting")):
        if is_current(venv, requirements):
            return False
        shutil.rmtree(venv, ignore_errors=True)
        require_disk(venv.parent, needs_bytes)
        try:
            _install(venv, requirements, report, carried, compiled)
        except BaseException:
            shutil.rmtree(venv, ignore_errors=True)
            raise
    return True


def require_disk(folder: Path, needs_bytes: int) -> None:
    """Raise KitError (ENVIRONMENT) unless `folder`'s disk has that much free."""
    free = shutil.disk_usage(folder).free
    if free < needs_bytes:
        raise KitError(
            f"not enough disk space in {folder}: {_mib(needs_bytes)} MiB are needed, {_mib(free)} MiB are free",
            "free some space, or clone the repository to a larger disk",
            ExitCode.ENVIRONMENT,
        )


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel frees it with the process, however it ends."""
    try:
        file = path.open("w")
    except OSError as error:
        raise KitError(
            f"cannot write {path}: {error.strerror}", "own the folder .kit, or free disk space", ExitCode.ENVIRONMENT
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install(venv: Path, requirements: Path, report: Report, carried: Path | None, compiled: bool) -> None:
    options = (*_PIP, *(() if compiled else ("--no-compile",)), "--requirement", str(requirements))
    with (venv.parent / f"{venv.name}-install.log").open("w") as record:
        if carried:
            _install_carried(venv, requirements, carried, record, report, options)
        else:
            _install_indexed(venv, record, report, options)
    (venv / STAMP).write_text(json.dumps(_stamp(requirements)))


def _install_indexed(venv: Path, record: TextIO, report: Report, options: tuple[str, ...]) -> None:
    try:
        import ensurepip  # noqa: F401  (Debian ships Python without it)
    except ImportError:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise KitError(
            f"{sys.executable} cannot make virtual environments: the module ensurepip is missing",
            f"on Debian and Ubuntu: sudo apt-get install python{version}-venv",
            ExitCode.ENVIRONMENT,
        ) from None
    run_logged([sys.executable, "-m", "venv", str(venv)], record, report)
    run_logged([str(python_of(venv)), "-m", "pip", "install", *options], record, report)


def _install_carried(
    venv: Path, requirements: Path, carried: Path, record: TextIO, report: Report, options: tuple[str, ...]
) -> None:
    """Neither ensurepip nor an index nor this host's settings of Python and pip have a say.

    -I leaves PYTHONPATH and its like out. --isolated leaves out PIP_* and the user's pip.conf; the machine's
    /etc/pip.conf only goes with PIP_CONFIG_FILE=/dev/null (pip 26.3 source, _internal/configuration.py).
    """
    carries = wheels.read(carried)
    wheels.require_fit(carries, wheels.this_host(), requirements)
    run_logged([sys.executable, "-I", "-m", "venv", "--without-pip", str(venv)], record, report, failures=_FROM_WHEELS)
    run_logged(
        [
            *(str(python_of(venv)), "-I", str(wheels.pip_of(carried) / "pip"), "--isolated", "install", *options),
            *("--no-index", "--find-links", str(carried), "--only-binary", ":all:", "--no-cache-dir"),
        ],
        record, report, {"PIP_CONFIG_FILE": os.devnull}, failures=_FROM_WHEELS,
    )  # fmt: skip


def run_logged(
    argv: list[str], record: TextIO, report: Report, environment: dict[str, str] | None = None,
    *, what: str = "the installation", failures: Failures = _FROM_INDEX,
) -> None:  # fmt: skip
    """Run a program to its end, each line to `record` and, shortened, to `report`.

    environment: variables beside those of this process. what: that which "failed". failures: causes to look for.
    Raises KitError (ENVIRONMENT) with pip's own reason when it fails. The
    program and its children are ended when this process is interrupted.
    """
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        text=True, errors="replace", start_new_session=True, env=os.environ | (environment or {}),
    )  # fmt: skip
    lines: list[str] = []
    try:
        for line in process.stdout:
            record.write(line)
            lines.append(line.rstrip())
            if progress := _progress_of(line):
                report(progress)
        status = process.wait()
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if status:
        raise _failure(lines, record.name, what, failures)


def _progress_of(line: str) -> str:
    words = line.split()
    if len(words) > 1 and words[0] in ("Collecting", "Downloading", "Using", "Building"):
        return f"{words[0].lower()} {words[-1] if words[0] == 'Using' else words[1]}"[:70]
    return "installing" if line.startswith("Installing collected") else ""


def _failure(lines: list[str], log: str, what: str, failures: Failures) -> KitError:
    text = "\n".join(lines)
    for sign, message, hint in failures:
        if sign in text:
            return KitError(f"{what} failed: {message}", f"{hint} (log: {log})", ExitCode.ENVIRONMENT)
    errors = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if line] or ["no output"]
    reason = errors[-1].removeprefix("ERROR: ")
    return KitError(f"{what} failed: {reason}", f"the whole log is in {log}", ExitCode.ENVIRONMENT)


def _stamp(requirements: Path) -> dict[str, str]:
    return {
        "requirements": hashlib.sha256(requirements.read_bytes()).hexdigest(),
        "python": platform.python_version(),
    }


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f}"
