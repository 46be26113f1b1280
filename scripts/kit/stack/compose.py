"""The containers by Docker Compose: compose.yaml for a GPU, compose.preview.yaml for the CPU preview; either with the gateway."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from kit import access, console
from kit.catalog.settings import Settings
from kit.diagnose import explain
from kit.errors import ExitCode, KitError
from kit.facts import ports
from kit.health import answers
from kit.stack import API, EVERY, GATEWAY, Report, Service, files, plain_lines, together
from kit.stack.images import Image, image_of
from kit.stack.local import port_taken

ASK_TIMEOUT = 20.0  # seconds, for a question to the engine
FILES_LABEL = "com.docker.compose.project.config_files"
HASH_LABEL = "com.docker.compose.config-hash"
KEPT_LINES = 5000  # of each log, when a start has failed
OLD_ENGINE = 25  # engines below refuse start_interval; files.ENGINE_20 does without


class ComposeStack:
    """See kit.stack.Stack. Every command that changes something is echoed before it runs."""

    def __init__(self, root: Path, settings: Settings, *, preview: bool = False) -> None:
        self.label = "CPU preview (Docker Compose)" if preview else "GPU stack (Docker Compose)"
        self.root = root
        self.preview = preview
        self.file = root / ("compose.preview.yaml" if preview else files.COMPOSE)
        self.settings = settings
        self._up: subprocess.Popen[str] | None = None
        self._up_output: list[str] = []
        self._reader: threading.Thread | None = None

    # --- what is

    @cached_property
    def gateway(self) -> bool:
        """True where the gateway has the port, and the API stands behind it."""
        return files.GATEWAY in (Path(name).name for name in self._chosen)

    @cached_property
    def url(self) -> str:
        if not self.gateway:
            return self.settings.api_url
        access.remember(self.settings)
        return self.settings.gateway_url

    def ps(self) -> list[Service]:
        failed_before = bool(self._up and self._up.poll())  # asked first, so that what made it fail is in what is seen next
        containers = self.containers()
        services = [together([self.service(name, one) for one in containers.get(name, (None,))]) for name in self.services]
        if failed_before:
            self._explain_up(services)
        return services

    @cached_property
    def services(self) -> tuple[str, ...]:
        """Those that the files have: with compose.api-only.yaml there is no VLM server."""
        return tuple(name for name in EVERY if name in self.config["services"])

    def is_current(self) -> bool:
        """Compose compares its own configuration: a hash of it is a label of each container.

        The hash knows the paths of mounted files, not what is in them: services
        read those at their start, so a file changed since then counts too.
        """
        containers = self.containers()
        counts = {name: len(containers.get(name, ())) for name in containers.keys() | self.wanted_counts().keys()}
        return counts == self.wanted_counts() and not any(self.outdated().values())

    def outdated(self) -> dict[str, list[dict[str, Any]]]:
        """By service, the containers of another configuration than the present one; a service that is no longer wanted too."""
        wanted = dict(line.split() for line in self._ask("config", "--hash", "*").splitlines())

        def is_outdated(name: str, container: dict[str, Any]) -> bool:
            return container["Config"]["Labels"][HASH_LABEL] != wanted.get(name) or _files_changed(container)

        return {name: [one for one in found if is_outdated(name, one)] for name, found in self.containers().items()}

    def wanted_counts(self) -> dict[str, int]:
        """By service, how many containers of it there are to be."""
        services = self.config["services"]
        return {name: (services[name].get("deploy") or {}).get("replicas", 1) for name in self.services}

    def containers(self) -> dict[str, list[dict[str, Any]]]:
        """By service, what `docker inspect` tells of its containers, the oldest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for container in sorted(self._containers(), key=lambda one: one["Created"]):
            found.setdefault(container["Config"]["Labels"]["com.docker.compose.service"], []).append(container)
        return found

    def images(self) -> list[Image]:
        found = []
        for container in self._containers():
            inspected = json.loads(self._run(["docker", "image", "inspect", container["Image"]]).stdout or "[{}]")[0]
            found.append(image_of(container["Config"]["Labels"]["com.docker.compose.service"], container, inspected))
        # Replicas run the same one, but for a while after it was replaced.
        return sorted(dict.fromkeys(found), key=lambda image: EVERY.index(image.service))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The files as Compose takes them together, every variable filled in."""
        return json.loads(self._ask("config", "--format", "json"))

    def wanted_images(self) -> dict[str, str]:
        """By service, the image that Compose would start, in the order of EVERY; the gateway's is the API's."""
        services = self.config["services"]
        found: dict[str, str] = {}
        for name in self.services:
            if services[name]["image"] not in found.values():
                found[name] = services[name]["image"]
        return found

    def tail(self, service: str, lines: int) -> list[str]:
        text = self._ask("logs", "--no-color", "--no-log-prefix", "--tail", str(lines), service, quiet=True)
        return plain_lines(text)

    def inside(self, service: str, *words: str) -> list[str]:
        """The command line that runs `words` in a service's container, stdin passed on."""
        return self.argv("exec", "--no-TTY", service, *words)

    def follow(self, service: str) -> Iterator[str]:
        argv = self.argv("logs", "--no-color", "--no-log-prefix", "--follow", "--tail", "0", service)
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
        argv = self.argv("up", "--detach", "--remove-orphans")
        console.echo(argv)
        self._up = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=self.root,
            start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read_up, args=(self._up, report), daemon=True)
        self._reader.start()

    def get_images(self, services: Sequence[str], report: Report) -> None:
        """Pull the images of these services; the preview's are built. report: each line that Compose writes.

        Raises KitError with the cause when it fails.
        """
        argv = self.argv("build" if self.preview else "pull", *services)
        console.echo(argv)
        lines: list[str] = []
        with subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, cwd=self.root
        ) as process:
            for line in process.stdout or ():
                if line.strip():
                    lines.append(line.strip())
                    report(line.strip())
        if process.returncode:
            raise failed(f"docker compose {argv[-len(services) - 1]}", lines)

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
            argv = self.argv("down", "--remove-orphans")
            console.echo(argv)
            done = subprocess.run(argv, cwd=self.root, text=True, capture_output=True, stdin=subprocess.DEVNULL)
            if done.returncode:
                raise failed("docker compose down", done.stderr.splitlines())
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

    def argv(self, *words: str) -> list[str]:
        """The command line of `docker compose` for these files."""
        return ["docker", "compose", "--project-directory", str(self.root), *self._files, *words]

    @cached_property
    def compose_files(self) -> list[Path]:
        """The Compose files of this stack, in their order."""
        names = self._chosen if not self._old_engine else files.with_(self._chosen, files.ENGINE_20)
        return [self.root / name for name in names]

    @cached_property
    def _files(self) -> list[str]:
        """Options that name the Compose files; none where Compose reads the same by itself."""
        by_itself = files.read_by_compose(self.root, self.settings.given("COMPOSE_FILE"))
        if self._chosen == by_itself and not self._old_engine:
            return []
        return [word for file in self.compose_files for word in ("--file", str(file))]

    @cached_property
    def _chosen(self) -> list[str]:
        gateway = self.settings.given("API_REPLICAS") is not None
        if self.preview:
            return files.of_preview(gateway)
        tags = (self.settings[name] for name in ("API_IMAGE_TAG_SUFFIX", "VLM_IMAGE_TAG_SUFFIX"))
        return files.in_force(self.root, self.settings.given("COMPOSE_FILE"), *tags, gateway=gateway)

    @cached_property
    def _old_engine(self) -> bool:
        major = re.match(r"\d+", self._run(["docker", "version", "--format", "{{.Server.Version}}"]).stdout)
        return bool(major) and int(major[0]) < OLD_ENGINE

    def _ask(self, *words: str, quiet: bool = False) -> str:
        try:
            done = self._run(self.argv(*words))
        except KitError:
            if quiet:
                return ""
            raise
        if done.returncode and not quiet:
            raise failed(f"docker compose {words[0]}", done.stderr.splitlines())
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
        # By `docker`, which takes a fifth of the processor time of `docker compose`: this is asked again and again.
        labels = (f"label=com.docker.compose.project={self.config['name']}", "label=com.docker.compose.oneoff=False")
        listed = self._run(["docker", "ps", "--all", "--quiet", *(word for label in labels for word in ("--filter", label))])
        if listed.returncode:
            raise failed("docker ps", listed.stderr.splitlines())
        if not (ids := listed.stdout.split()):
            return []
        # One that is gone by now is not among the answers.
        found = json.loads(self._run(["docker", "inspect", *ids]).stdout or "[]")
        # COMPOSE_PROJECT_NAME can put both stacks into one project; the files tell them apart.
        return [container for container in found if self.file in _compose_files(container)]

    def service(self, name: str, container: dict[str, Any] | None) -> Service:
        """A container as what it is: see kit.stack.Service."""
        if container is None:
            return Service(name, "absent")
        state = container["State"]
        logged = self._run(["docker", "logs", "--tail", "1", container["Id"]])
        last = (plain_lines(logged.stdout + logged.stderr) or [""])[-1]
        detail, restarts = f"container {container['Id'][:12]}", container["RestartCount"]
        if restarts:
            detail += f", restarted {restarts} time{'s' if restarts > 1 else ''}"
        if state["Status"] in ("exited", "dead", "restarting"):
            return Service(name, "exited", None, f"{detail}, exit status {state['ExitCode']}", last)
        if state["Status"] == "created":
            return Service(name, "absent", None, "waits for the VLM", last)
        health = state.get("Health", {}).get("Status", "healthy")
        known = {"healthy": "ready", "starting": "starting", "unhealthy": "unhealthy"}
        first = GATEWAY if self.gateway else API
        if name == first and health == "starting" and answers(f"{self.url}/{'ready' if self.gateway else 'health'}"):
            health = "healthy"  # no need to wait for the engine's next look
        return Service(name, known.get(health, "ready"), _age(state["StartedAt"]), detail, last, restarts)

    def _read_up(self, process: subprocess.Popen[str], report: Report) -> None:
        for line in process.stdout or ():
            if line.strip():
                self._up_output.append(line.strip())
                report(line.strip())

    def _explain_up(self, services: Sequence[Service]) -> None:
        if self._reader:
            self._reader.join(2)  # the reason stands in the last lines
        # Of a service that has died Compose says no more than "unhealthy"; its state and its log say why.
        blames = any("dependency failed to start" in line for line in self._up_output)
        if not (blames and any(service.has_died for service in services)):
            raise failed("docker compose up", self._up_output)


def failed(command: str, lines: list[str]) -> KitError:
    """The error for a command that failed with these lines: their cause where it is known."""
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
    """True when a file mounted from this machine was written after the container's start.

    Of folders those that the container cannot write to: code, and the viewer's files, but no data.
    """
    files: list[Path] = []
    for mount in container["Mounts"]:
        path = Path(mount["Source"])
        if mount["Type"] == "bind" and not path.is_dir():
            files.append(path)
        elif mount["Type"] == "bind" and not mount["RW"]:
            files += [file for file in path.rglob("*.*") if file.suffix != ".pyc"]
    age = _age(container["State"]["StartedAt"])
    return any(
        not file.exists() or (time.time() - file.stat().st_mtime < age and not file.is_char_device())  # /dev/null: not given
        for file in files
    )


def _age(started: str) -> float:
    """Seconds since an RFC 3339 time with nanoseconds, as Docker writes it."""
    at = datetime.strptime(started[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc)
    return (datetime.now(timezone.utc) - at).total_seconds()
