"""./kit test: the tests that this machine can run, in an environment of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from kit import console, envs, wheels

# Three workers; tests/conftest.py says what stays in one, and in which order they take it.
ALL = ("-n", "3", "--dist", "loadscope", "--no-loadscope-reorder")
NEEDS_BYTES = 900 * 2**20  # `du -sm .kit/test-venv`, plus pip's temporary files


def chromium() -> str | None:
    """The program with which the tests of the viewer look at it; the system's, as none comes from a package index."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def run(root: Path, arguments: list[str]) -> int:
    """Install what the tests need, say what is tested here and what is not, run pytest; its exit status."""
    venv = root / ".kit" / "test-venv"
    requirements = root / "tests" / "requirements.txt"
    if not envs.is_current(venv, requirements):
        wheels.require_index(root, "what the tests need", "./kit test is for a clone of the repository")
    with console.Board() as board:
        envs.ensure(
            venv,
            requirements,
            needs_bytes=NEEDS_BYTES,
            report=lambda line: board.note(f"tests: {line}"),
            compiled=False,
        )
    console.say("unit    ✔ pure functions, the command line, compose.yaml by the real Compose binary")
    console.say("stack   ✔ the CPU preview as real processes; the first run installs it")
    if os.geteuid() == 0 and (root / ".kit" / "test-engines" / "current").exists():
        console.say("docker  ✔ compose.yaml and the preview's images on private engines of the tests' own")
    else:
        console.say("docker  ✖ as root on Debian: python3 tests/docker/engine.py install")
    console.say("viewer  ✔ in this machine's Chromium" if chromium() else "viewer  ✖ needs Chromium: apt-get install chromium")
    console.say("GPU     ✖ no test here runs the official images")
    argv = [str(envs.python_of(venv)), "-m", "pytest", *(arguments or ALL)]
    console.echo(argv)
    return subprocess.run(argv, cwd=root, env=os.environ | {"PYTHONPATH": str(root / "scripts")}).returncode
