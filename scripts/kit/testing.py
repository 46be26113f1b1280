"""./kit test: the tests that this machine can run, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kit import console, envs

# Two workers; tests/conftest.py says what stays in one of them. Tests on an engine mostly wait.
ALL = ("-n", "2", "--dist", "loadscope")
NEEDS_BYTES = 900 * 2**20  # `du -sm .kit/test-venv`, plus pip's temporary files


def run(root: Path, arguments: list[str]) -> int:
    """Install what the tests need, say what is tested here and what is not, run pytest; its exit status."""
    venv = root / ".kit" / "test-venv"
    with console.Board() as board:
        envs.ensure(
            venv,
            root / "tests" / "requirements.txt",
            needs_bytes=NEEDS_BYTES,
            report=lambda line: board.note(f"tests: {line}"),
        )
    console.say("unit    ✔ pure functions, the command line, compose.yaml by the real Compose binary")
    console.say("stack   ✔ the CPU preview as real processes; the first run installs it")
    if os.geteuid() == 0 and (root / ".kit" / "test-engines" / "current").exists():
        console.say("docker  ✔ compose.yaml and the preview's images on private engines of the tests' own")
    else:
        console.say("docker  ✖ as root on Debian: python3 tests/docker/engine.py install")
    console.say("GPU     ✖ no test here runs the official images")
    argv = [str(envs.python_of(venv)), "-m", "pytest", *(arguments or ALL)]
    console.echo(argv)
    return subprocess.run(argv, cwd=root, env=os.environ | {"PYTHONPATH": str(root / "scripts")}).returncode
