"""From any Python >= 3.10 to ./kit's own environment, and on into cli.py.

Standard library only. The shell script `kit` runs this with the first fitting
Python that it finds; on first use it makes .kit/venv, afterwards it costs a
file comparison.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from kit import envs, wheels
from kit.errors import ExitCode, KitError

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Measured: `du -sm .kit/venv` is 105 on Linux; some more for pip's temporary files.
NEEDS_BYTES = 150 * 2**20

# Runs without the current folder on sys.path, whose files could shadow modules.
ENTRY = "import sys; sys.path[0] = sys.argv.pop(1); from kit.cli import main; sys.exit(main())"


def main() -> None:
    """Replace this process by the real ./kit; exits by itself on failure."""
    venv = ROOT / ".kit" / "venv"
    try:
        carried = wheels.carried(ROOT)
        if envs.ensure(venv, REQUIREMENTS, needs_bytes=NEEDS_BYTES, report=_Report(), carried=carried):
            print("\r\033[K" if sys.stderr.isatty() else "", end="", file=sys.stderr)
    except KitError as error:
        _fail(error.message, error.hint, error.code)
    except KeyboardInterrupt:
        _fail("interrupted; nothing was kept", "", ExitCode.INTERRUPTED)
    except OSError as error:
        _fail(f"cannot make {venv}: {error.strerror}", "own the folder .kit, or free disk space", ExitCode.ENVIRONMENT)
    python = str(envs.python_of(venv))
    os.execv(python, [python, "-c", ENTRY, str(ROOT / "scripts"), *sys.argv[1:]])


class _Report:
    """Progress before any library is there: one line that renews itself on a terminal."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.said = False

    def __call__(self, line: str) -> None:
        seconds = time.monotonic() - self.start
        if sys.stderr.isatty():
            print(f"\r\033[KFirst use: making .kit/venv  {seconds:3.0f} s  {line}", end="", file=sys.stderr, flush=True)
        elif not self.said:
            print("First use: making .kit/venv …", file=sys.stderr, flush=True)
            self.said = True


def _fail(message: str, hint: str, code: ExitCode) -> None:
    start = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{start}error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    sys.exit(code)
