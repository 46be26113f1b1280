"""Is there a Docker engine that answers, and a Compose that can drive it."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass

# A daemon that hangs must not hang ./kit.
TIMEOUT = 10.0  # seconds


@dataclass(frozen=True)
class Docker:
    """engine, compose: versions, or None; problem: why the engine cannot be used, or empty."""

    engine: str | None
    compose: str | None
    problem: str = ""

    @property
    def usable(self) -> bool:
        return bool(self.engine and self.compose)


def docker() -> Docker:
    """Ask the docker command; never raises, never waits longer than TIMEOUT a question."""
    if not shutil.which("docker"):
        return Docker(None, None, "the command docker is not installed")
    engine, problem = _ask(["docker", "version", "--format", "{{json .Server.Version}}"])
    compose, no_compose = _ask(["docker", "compose", "version", "--short"])
    try:
        engine = json.loads(engine) if engine else None
    except ValueError:
        engine = None
    if engine and not compose:
        problem = no_compose or "the Compose plugin is not installed"
    return Docker(engine, compose.lstrip("v") if compose else None, "" if engine and compose else problem)


def _ask(argv: list[str]) -> tuple[str, str]:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return "", f"`{' '.join(argv[:2])}` did not answer within {TIMEOUT:.0f} s"
    except OSError as error:
        return "", str(error)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        return "", lines[-1]
    return done.stdout.strip(), ""
