"""The GPU stack: compose.yaml by Docker Compose."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from kit import console
from kit.catalog.settings import Settings
from kit.diagnose import explain
from kit.errors import ExitCode, KitError
from kit.facts import ports
from kit.stack import SERVICES, Report, Service, plain_lines
from kit.stack.local import port_taken

ASK_TIMEOUT = 20.0  # seconds, for a question to the engine


class ComposeStack:
    """See kit.stack.Stack. Every command that changes something is echoed before it runs."""

    label = "GPU stack (Docker Compose)"

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.url = settings.api_url
        self._up: subprocess.Popen[str] | None = None
        self._up_output: list[str] = []

    # --- what is

    def ps(self) -> list[Service]:
        self._check_up()
        containers = {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in self._containers()}
        return [self._service(name, containers.get(name)) for name in SERVICES]

    def is_current(self) -> bool:
        """Compose itself compares: the hash of each service's configuration is a label of its container."""
        wanted = dict(line.split() for line in self._ask("config", "--hash", "*").splitlines())
        labels = [c["Config"]["Labels"] for c in self._containers()]
        running = {entry["com.docker.compose.service"]: entry["com.docker.compose.config-hash"] for entry in labels}
        return wanted == running

    def tail(self, service: str, lines: int) -> list[str]:
        text = self._ask("logs", "--no-color", "--no-log-prefix", "--tail", str(lines), service, quiet=True)
        return plain_lines(text)

    def follow(self, service: str) -> Iterator[str]:
        argv = self._argv("logs", "--no-color", "--no-log-prefix", "--follow", "--tail", "0", service)
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.root) as process:
            try:
                for line in process.stdout or ():
                    yield line.rstrip("\n")
            finally:
                process.terminate()

    # --- what acts

    def up(self, report: Report) -> None:
        """Start `docker compose up` and leave it running: it pulls, then holds the API back until the VLM is healthy.

        Raises KitError (PORT) when another program holds the API's port.
        """
        if not self._containers() and not ports.is_free(self.settings["API_BIND"], int(self.settings["API_PORT"])):
            raise port_taken(int(self.settings["API_PORT"]), "API_PORT")
        argv = self._argv("up", "--detach", "--remove-orphans")
        console.echo(argv)
        self._up = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=self.root,
            start_new_session=True,
        )  # fmt: skip
        threading.Thread(target=self._read_up, args=(self._up, report), daemon=True).start()

    def down(self) -> list[str]:
        if self._up and self._up.poll() is None:
            self._up.kill()
            self._up.wait()
        running = [service.name for service in self.ps_quiet() if service.state != "absent"]
        if running:
            argv = self._argv("down", "--remove-orphans")
            console.echo(argv)
            done = subprocess.run(argv, cwd=self.root, text=True, capture_output=True, stdin=subprocess.DEVNULL)
            if done.returncode:
                raise _failed("docker compose down", done.stderr.splitlines())
        return running

    def ps_quiet(self) -> list[Service]:
        """ps, without judging an `up` that failed."""
        self._up = None
        return self.ps()

    # --- Docker

    def _argv(self, *words: str) -> list[str]:
        return ["docker", "compose", "--project-directory", str(self.root), *words]

    def _ask(self, *words: str, quiet: bool = False) -> str:
        try:
            done = subprocess.run(
                self._argv(*words), capture_output=True, text=True, timeout=ASK_TIMEOUT, cwd=self.root, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            if quiet:
                return ""
            raise KitError(
                f"docker compose {words[0]} gave no answer within {ASK_TIMEOUT:.0f} s",
                "the Docker engine may hang: sudo systemctl restart docker",
                ExitCode.ENVIRONMENT,
            ) from None
        if done.returncode and not quiet:
            raise _failed(f"docker compose {words[0]}", done.stderr.splitlines())
        return done.stdout

    def _containers(self) -> list[dict[str, Any]]:
        ids = self._ask("ps", "--all", "--quiet").split()
        if not ids:
            return []
        done = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True, timeout=ASK_TIMEOUT)
        return json.loads(done.stdout or "[]")

    def _service(self, name: str, container: dict[str, Any] | None) -> Service:
        if container is None:
            return Service(name, "absent")
        state = container["State"]
        last = (self.tail(name, 1) or [""])[0]
        detail = f"container {container['Id'][:12]}"
        # A container that has died once is being restarted for ever: say so at once.
        if state["Status"] in ("exited", "dead", "restarting") or container["RestartCount"]:
            return Service(name, "exited", None, f"{detail}, exit status {state['ExitCode']}", last)
        if state["Status"] == "created":
            return Service(name, "absent", None, "waits for the VLM", last)
        health = state.get("Health", {}).get("Status", "healthy")
        known = {"healthy": "ready", "starting": "starting", "unhealthy": "unhealthy"}
        return Service(name, known[health], _age(state["StartedAt"]), detail, last)

    def _read_up(self, process: subprocess.Popen[str], report: Report) -> None:
        for line in process.stdout or ():
            if line.strip():
                self._up_output.append(line.strip())
                report(line.strip())

    def _check_up(self) -> None:
        if self._up and self._up.poll():
            raise _failed("docker compose up", self._up_output)


def _failed(command: str, lines: list[str]) -> KitError:
    lines = [line for line in lines if line.strip()]
    known = explain(lines)
    return KitError(
        f"{command} failed: {known.cause if known else (lines or ['no output'])[-1]}",
        known.fix if known else "run it by hand to see all of it",
        ExitCode.ENVIRONMENT if known else ExitCode.START,
        detail=tuple(lines[-10:]),
    )


def _age(started: str) -> float:
    """Seconds since an RFC 3339 time with nanoseconds, as Docker writes it."""
    at = datetime.strptime(started[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - at).total_seconds()
