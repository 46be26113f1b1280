"""The two containers by Docker Compose: compose.yaml for a GPU, compose.preview.yaml for the CPU preview."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from kit import console
from kit.catalog.settings import Settings
from kit.diagnose import explain
from kit.errors import ExitCode, KitError
from kit.facts import ports
from kit.health import answers
from kit.stack import API, SERVICES, Report, Service, plain_lines
from kit.stack.images import Image, image_of
from kit.stack.local import port_taken

ASK_TIMEOUT = 20.0  # seconds, for a question to the engine
FILES_LABEL = "com.docker.compose.project.config_files"
KEPT_LINES = 5000  # of each log, when a start has failed
OLD_ENGINE = 25  # engines below refuse start_interval; compose.engine-20.yaml does without


class ComposeStack:
    """See kit.stack.Stack. Every command that changes something is echoed before it runs."""

    def __init__(self, root: Path, settings: Settings, *, preview: bool = False) -> None:
        self.label = "CPU preview (Docker Compose)" if preview else "GPU stack (Docker Compose)"
        self.root = root
        self.file = root / ("compose.preview.yaml" if preview else "compose.yaml")
        self.settings = settings
        self.url = settings.api_url
        self._up: subprocess.Popen[str] | None = None
        self._up_output: list[str] = []
        self._reader: threading.Thread | None = None

    # --- what is

    def ps(self) -> list[Service]:
        self._check_up()
        containers = {c["Config"]["Labels"]["com.docker.compose.service"]: c for c in self._containers()}
        return [self._service(name, containers.get(name)) for name in self.services]

    @cached_property
    def services(self) -> tuple[str, ...]:
        """Those of SERVICES that the files have: with compose.api-only.yaml there is no VLM server."""
        there = self._ask("config", "--services").split()
        return tuple(name for name in SERVICES if name in there)

    def is_current(self) -> bool:
        """Compose compares its own configuration: a hash of it is a label of each container.

        The hash knows the paths of mounted files, not what is in them: services
        read those at their start, so a file changed since then counts too.
        """
        wanted = dict(line.split() for line in self._ask("config", "--hash", "*").splitlines())
        containers = self._containers()
        labels = [c["Config"]["Labels"] for c in containers]
        running = {entry["com.docker.compose.service"]: entry["com.docker.compose.config-hash"] for entry in labels}
        return wanted == running and not any(_files_changed(container) for container in containers)

    def images(self) -> list[Image]:
        found = []
        for container in self._containers():
            inspected = json.loads(self._run(["docker", "image", "inspect", container["Image"]]).stdout or "[{}]")[0]
            found.append(image_of(container["Config"]["Labels"]["com.docker.compose.service"], container, inspected))
        return sorted(found, key=lambda image: SERVICES.index(image.service))

    def tail(self, service: str, lines: int) -> list[str]:
        text = self._ask("logs", "--no-color", "--no-log-prefix", "--tail", str(lines), service, quiet=True)
        return plain_lines(text)

    def inside(self, service: str, *words: str) -> list[str]:
        """The command line that runs `words` in a service's container, stdin passed on."""
        return self._argv("exec", "--no-TTY", service, *words)

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
        self._reader = threading.Thread(target=self._read_up, args=(self._up, report), daemon=True)
        self._reader.start()

    def down(self) -> list[str]:
        started = self._up is not None
        if started:  # and came to nothing: the logs go with the containers, so keep what they say
            self._keep_logs()
        if self._up and self._up.poll() is None:
            self._up.kill()
            self._up.wait()
        running = [service.name for service in self.ps_quiet() if service.state != "absent"]
        # Also what was made and never started, such as after a GPU failure: it holds names and a network.
        if running or started or self._containers():
            argv = self._argv("down", "--remove-orphans")
            console.echo(argv)
            done = subprocess.run(argv, cwd=self.root, text=True, capture_output=True, stdin=subprocess.DEVNULL)
            if done.returncode:
                raise _failed("docker compose down", done.stderr.splitlines())
        return running

    def _keep_logs(self) -> None:
        folder = self.root / ".kit" / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        for name in self.services:
            if lines := self.tail(name, KEPT_LINES):
                (folder / f"{name}.log").write_text("\n".join(lines) + "\n")

    def ps_quiet(self) -> list[Service]:
        """ps, without judging an `up` that failed."""
        self._up = None
        return self.ps()

    # --- Docker

    def _argv(self, *words: str) -> list[str]:
        return ["docker", "compose", "--project-directory", str(self.root), *self._files, *words]

    @cached_property
    def _files(self) -> list[str]:
        """Options that name the Compose files. None where Compose's own choice will do: it also reads a compose.override.yaml."""
        done = self._run(["docker", "version", "--format", "{{.Server.Version}}"])
        major = re.match(r"\d+", done.stdout)
        old = bool(major) and int(major[0]) < OLD_ENGINE
        gpu = self.file.name == "compose.yaml"
        if gpu and not old:
            return []
        override = self.root / "compose.override.yaml"
        if not gpu:
            files = [self.file]
        elif (named := self.settings["COMPOSE_FILE"]) != self.file.name:
            files = [self.root / name for name in named.split(":")]
        else:
            files = [self.file, *([override] if override.exists() else [])]
        if old:  # right after the first: what comes later may take the service away that it changes
            files.insert(1, self.root / "compose.engine-20.yaml")
        return [word for file in files for word in ("--file", str(file))]

    def _ask(self, *words: str, quiet: bool = False) -> str:
        try:
            done = self._run(self._argv(*words))
        except KitError:
            if quiet:
                return ""
            raise
        if done.returncode and not quiet:
            raise _failed(f"docker compose {words[0]}", done.stderr.splitlines())
        return done.stdout

    def _run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                argv, capture_output=True, text=True, timeout=ASK_TIMEOUT, cwd=self.root, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            raise KitError(
                f"{' '.join(argv[:2])} gave no answer within {ASK_TIMEOUT:.0f} s",
                "the Docker engine may hang: sudo systemctl restart docker",
                ExitCode.ENVIRONMENT,
            ) from None

    def _containers(self) -> list[dict[str, Any]]:
        ids = self._ask("ps", "--all", "--quiet").split()
        if not ids:
            return []
        found = json.loads(self._run(["docker", "inspect", *ids]).stdout or "[]")
        # COMPOSE_PROJECT_NAME can put both stacks into one project; the files tell them apart.
        return [container for container in found if self.file in _compose_files(container)]

    def _service(self, name: str, container: dict[str, Any] | None) -> Service:
        if container is None:
            return Service(name, "absent")
        state = container["State"]
        last = (self.tail(name, 1) or [""])[0]
        detail, restarts = f"container {container['Id'][:12]}", container["RestartCount"]
        if restarts:
            detail += f", restarted {restarts} time{'s' if restarts > 1 else ''}"
        if state["Status"] in ("exited", "dead", "restarting"):
            return Service(name, "exited", None, f"{detail}, exit status {state['ExitCode']}", last)
        if state["Status"] == "created":
            return Service(name, "absent", None, "waits for the VLM", last)
        health = state.get("Health", {}).get("Status", "healthy")
        known = {"healthy": "ready", "starting": "starting", "unhealthy": "unhealthy"}
        if name == API and health == "starting" and answers(f"{self.url}/health"):
            health = "healthy"  # no need to wait for the engine's next look
        return Service(name, known.get(health, "ready"), _age(state["StartedAt"]), detail, last, restarts)

    def _read_up(self, process: subprocess.Popen[str], report: Report) -> None:
        for line in process.stdout or ():
            if line.strip():
                self._up_output.append(line.strip())
                report(line.strip())

    def _check_up(self) -> None:
        if self._up and self._up.poll():
            if self._reader:
                self._reader.join(2)  # the reason stands in the last lines
            raise _failed("docker compose up", self._up_output)


def _failed(command: str, lines: list[str]) -> KitError:
    lines = [line for line in lines if line.strip()]
    known = explain(lines)
    code = ExitCode.START if not known else ExitCode.PORT if known.name == "port-taken" else ExitCode.ENVIRONMENT
    return KitError(
        f"{command} failed: {known.cause if known else (lines or ['no output'])[-1]}",
        known.fix if known else "run it by hand to see all of it",
        code,
        detail=tuple(lines[-10:]),
    )


def _compose_files(container: dict[str, Any]) -> list[Path]:
    """The Compose files from which a container was made."""
    return [Path(name).resolve() for name in container["Config"]["Labels"].get(FILES_LABEL, "").split(",")]


def _files_changed(container: dict[str, Any]) -> bool:
    """True when a file mounted from this machine was written after the container's start."""
    files = [Path(mount["Source"]) for mount in container["Mounts"] if mount["Type"] == "bind"]
    age = _age(container["State"]["StartedAt"])
    return any(not file.exists() or time.time() - file.stat().st_mtime < age for file in files)


def _age(started: str) -> float:
    """Seconds since an RFC 3339 time with nanoseconds, as Docker writes it."""
    at = datetime.strptime(started[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - at).total_seconds()
