"""The repository's Compose files, driven on a private engine; images of the official names are stubs made here."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from base_image import make_base_image
from engine import COMMAND_SECONDS, Engine
from kit.catalog.settings import SETTINGS
from kit.stack import API, SERVICES, VLM

ROOT = Path(__file__).resolve().parents[2]
STUBS = Path(__file__).resolve().parent / "stubs"
OVERRIDE = "compose.engine-20.yaml"
# Not the same and not the default: so that a mix-up is seen.
GPUS = {"API_GPU": "1", "VLM_GPU": "GPU-8a5c"}
CUT_OFF = {"VLM_NETWORK_INTERNAL": "true"}
PREVIEW_IMAGES = {API: "paddleocr-vl-kit/preview-api:local", VLM: "paddleocr-vl-kit/preview-vlm:local"}
COMMANDS = {API: "paddlex", VLM: "paddleocr"}


class Project:
    """`docker compose` with the given files of this repository, unaffected by a developer's .env and environment."""

    def __init__(self, engine: Engine, *files: str, settings: dict[str, str] | None = None) -> None:
        self.engine = engine
        self.files = files
        ours = {name: value for name, value in engine.environment.items() if name not in SETTINGS}
        self.environment = ours | (settings or {})

    def run(self, *words: str, timeout: float = COMMAND_SECONDS) -> subprocess.CompletedProcess[str]:
        files = [word for name in self.files for word in ("--file", str(ROOT / name))]
        argv = ["docker", "compose", "--project-directory", str(ROOT), "--env-file", "/dev/null", *files, *words]
        return self.engine.call(argv, env=self.environment, timeout=timeout)

    def ask(self, *words: str, timeout: float = COMMAND_SECONDS) -> str:
        """stdout. Raises AssertionError with everything that was said when the command fails."""
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, f"docker compose {' '.join(words)} → {done.returncode}\n{done.stderr[-4000:]}"
        return done.stdout

    def config(self) -> dict[str, Any]:
        return json.loads(self.ask("config", "--format", "json"))

    @cached_property
    def name(self) -> str:
        return self.config()["name"]

    def container(self, service: str) -> dict[str, Any]:
        """`docker inspect` of the service's container. Found by `docker`: Compose takes five times the processor time."""
        labels = (f"project={self.name}", f"service={service}", "oneoff=False")
        filters = [word for label in labels for word in ("--filter", f"label=com.docker.compose.{label}")]
        return self.engine.inspect(self.engine.docker("ps", "--all", "--quiet", *filters).strip())

    def pids(self, service: str) -> list[int]:
        """On this machine, of the service itself: children of the container's init, which a health check under way is not."""
        container = self.container(service)
        init = str(container["State"]["Pid"])
        listed = self.engine.docker("top", container["Id"], "-o", "pid,ppid").splitlines()[1:]
        return [int(pid) for pid, parent in map(str.split, listed) if parent == init]

    def execute(self, service: str, command: str, user: str | None = None) -> subprocess.CompletedProcess[str]:
        """A shell command inside the running container, as the service's user or as `user`."""
        who = ["--user", user] if user else []
        return self.engine.call(["docker", "exec", *who, self.container(service)["Id"], "sh", "-c", command])

    def logs(self, service: str) -> str:
        return self.ask("logs", "--no-color", "--no-log-prefix", service)


def every_process(project: Project, service: str) -> list[dict[str, str]]:
    """Name, Uid, Cap… and so on of /proc/*/status, of each process in the service's container."""
    shell = "for p in /proc/[0-9]*; do grep -E '^(Name|Uid|Cap...|NoNewPrivs|Seccomp):' $p/status; echo; done"
    blocks = project.execute(service, shell).stdout.split("\n\n")
    return [dict(line.split(":\t", 1) for line in block.splitlines()) for block in blocks if block.strip()]


def assert_without_rights(processes: list[dict[str, str]]) -> None:
    """Every one of them: uid 1000, no capability of any set, no new privileges, system calls filtered."""
    for process in processes:
        assert process["Uid"].split() == ["1000"] * 4, process
        assert process["NoNewPrivs"] == "1", process
        assert process["Seccomp"] == "2", process
        assert {int(value, 16) for name, value in process.items() if name.startswith("Cap")} == {0}, process


def tag_stubs(engine: Engine) -> None:
    """Give `engine` a stub under each image name that compose.yaml asks for by default."""
    base = make_base_image(engine)
    services = Project(engine, "compose.yaml").config()["services"]
    with tempfile.TemporaryDirectory(prefix="kit-stubs-") as folder:
        context = Path(folder) / "stubs"
        shutil.copytree(STUBS, context)
        for service in SERVICES:
            command = COMMANDS[service]
            arguments = {"BASE": base, "STUB": f"stub_{command}.py", "COMMAND": command}
            words = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
            environment = engine.environment | {"DOCKER_BUILDKIT": "0"}
            engine.docker("build", "--quiet", *words, "--tag", services[service]["image"], str(context), env=environment)
