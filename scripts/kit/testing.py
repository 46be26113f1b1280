"""./kit test: the tests that this machine can run, in an environment of their own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from kit import console, envs
from kit.facts.docker import docker
from kit.facts.gpus import gpus

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
    engine = docker()
    console.say("unit    ✔ pure functions and command line")
    console.say("stack   ✔ the CPU preview as real processes (the first run installs it)")
    console.say("compose ✔ compose.yaml checked by the real Compose binary")
    console.say(f"engine  {'✔ Docker ' + str(engine.engine) if engine.usable else '✖ ' + engine.problem}")
    console.say(f"GPU     {'✔ ' + gpus()[0].name if gpus() else '✖ no NVIDIA GPU: official images are not run'}")
    argv = [str(envs.python_of(venv)), "-m", "pytest", *arguments]
    console.echo(argv)
    return subprocess.run(argv, cwd=root, env=os.environ | {"PYTHONPATH": str(root / "scripts")}).returncode
