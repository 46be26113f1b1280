"""Ask a program one question; never raises, never waits for ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence


def ask(argv: Sequence[str], timeout: float) -> tuple[str, str]:
    """(what it wrote to stdout, "") or ("", why there is no answer). timeout: seconds.

    A program that does not answer is ended with the programs that it started.
    """
    try:
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
            text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return "", str(error)
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _end(process)
        return "", f"`{' '.join(argv[:2])}` did not answer within {timeout:g} s"
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        return "", (err.strip().splitlines() or ["no output"])[-1]
    return out.strip(), ""


def _end(process: subprocess.Popen[str]) -> None:
    """Without waiting: a program that hangs inside the kernel does not end."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
