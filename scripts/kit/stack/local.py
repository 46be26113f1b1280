"""The CPU preview as processes of this user: no Docker, no GPU.

The same real `paddlex --serve` as in the API image, calling the stand-in VLM
server of kit.preview.vlm; where API_REPLICAS is set, so many of them behind the gateway.
State lies in .kit/run: one JSON with pids, whose start times guard against a pid that the
system has given to another program.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from kit import access, health
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts import ports
from kit.preview import overlay
from kit.preview.install import Installation
from kit.stack import API, EVERY, GATEWAY, SERVICES, VLM, Report, Service, plain_lines, together
from kit.stack.images import Image

STOP_SECONDS = 10.0  # from SIGTERM to SIGKILL
GATEWAY_STOP_SECONDS = 30.0  # longer than its own limit for what it has begun
HOST = "127.0.0.1"  # of the stand-in VLM: reached by the API alone


class LocalStack:
    """See kit.stack.Stack."""

    label = "CPU preview (processes)"

    def __init__(self, root: Path, settings: Settings) -> None:
        self.root = root
        self.settings = settings
        self.run = root / ".kit" / "run"
        self.logs = root / ".kit" / "logs"
        self.installation = Installation(root)

    # --- what is

    @property
    def url(self) -> str:
        """Where the running API was told to listen; where nothing runs, where it would be."""
        access.remember(self.settings)
        return self._state().get("url") or (self.settings.gateway_url if self.gateway else self.settings.api_url)

    @property
    def gateway(self) -> bool:
        """True where a gateway is to be in front, whatever runs now."""
        return self.settings.given("API_REPLICAS") is not None

    @property
    def services(self) -> tuple[str, ...]:
        """With the gateway where one runs; where nothing does, where one would."""
        recorded = self.recorded()
        return EVERY if (GATEWAY in recorded if recorded else self.gateway) else SERVICES

    def ps(self) -> list[Service]:
        recorded = self.recorded()
        apis = together([replace(self._service(name, recorded.get(name)), name=API) for name in self._replicas(API)])
        return [apis if name == API else self._service(name, recorded.get(name)) for name in self.services]

    def is_current(self) -> bool:
        return self._state().get("digest") == self.digest()

    def images(self) -> list[Image]:
        return []

    def tail(self, service: str, lines: int) -> list[str]:
        """Of several APIs the logs one after the other, as many lines of each; those that have died come last."""
        names = sorted(self._replicas(service), key=lambda name: not self.runs(name))
        each = lines // len(names) or min(lines, 1)
        return [line for name in names for line in self._tail(name, each)][-lines:] if lines else []

    def _tail(self, name: str, lines: int) -> list[str]:
        try:
            text = self._log(name).read_text(errors="replace")
        except OSError:
            return []
        return plain_lines(text)[-lines:]

    def follow(self, service: str) -> Iterator[str]:
        names = self._replicas(service)
        with contextlib.ExitStack() as opened:
            logs = [opened.enter_context(self._log(name).open(errors="replace")) for name in names]
            for log in logs:
                log.seek(0, os.SEEK_END)
            while True:
                lines = [line for log in logs if (line := log.readline())]
                yield from (line.rstrip("\n") for line in lines)
                if not lines and not any(map(self.runs, names)):
                    return
                if not lines:
                    time.sleep(0.2)

    # --- what acts

    def up(self, report: Report) -> None:
        """Install what is missing, then start all processes at once.

        Raises KitError: ENVIRONMENT when the preview cannot be installed, PORT
        when another program holds a port. Nothing is left running then.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self._require_ports()
        config_file = self.prepare(report)
        self._require_ports()
        url = self.settings.gateway_url if self.gateway else self.settings.api_url
        self._write_state({"digest": self.digest(), "vlm": self.vlm_digest(), "url": url, "services": {}})
        self._spawn(VLM, self._vlm_command(), self._environment(), self._vlm_port)
        if self.gateway:
            self.start_gateway(self.start_replicas(config_file))
        else:
            self._spawn(API, self._api_command(config_file), self._environment(), self._api_port)

    def down(self) -> list[str]:
        running = {_service_of(name) for name, record in self.recorded().items() if self._process(record)}
        # The gateway first: what it has begun needs the others.
        self.stop([GATEWAY], GATEWAY_STOP_SECONDS)
        self.stop(list(self.recorded()), STOP_SECONDS)
        self._state_file.unlink(missing_ok=True)
        return [name for name in EVERY if name in running]

    # --- parts of it, for kit.stack.takeover too

    def prepare(self, report: Report) -> Path:
        """Install what is missing and write the APIs' pipeline config. Raises KitError."""
        config = self._pipeline_config()
        self.installation.install(config, report)
        return self._write_config(config)

    def start_replicas(self, config: Path) -> list[str]:
        """Start as many APIs as are wanted, beside those that are there; their names."""
        names = (API if number == 1 else f"{API}-{number}" for number in itertools.count(1))
        recorded = self.recorded()
        started = list(itertools.islice((name for name in names if name not in recorded), int(self.settings["API_REPLICAS"])))
        for name in started:
            port = _free_port()
            self._spawn(name, self._api_command(config, HOST, port), self._environment() | overlay.REPLICA_ENVIRONMENT, port)
        return started

    def start_gateway(self, replicas: list[str], name: str = GATEWAY) -> None:
        """Start a gateway for these; it takes the port over from one that runs."""
        recorded = self.recorded()
        files = ("GATEWAY_API_KEYS_FILE", "GATEWAY_TLS_CERTIFICATE", "GATEWAY_TLS_KEY", "GATEWAY_SPOOL_DIR")
        given = {k: str(self.root / v) if k in files else v for k, v in self.settings.gateway.items()}
        environment = {k: v for k, v in self._environment().items() if not k.startswith("GATEWAY_")} | given
        environment |= {
            "GATEWAY_HOST": self.settings["API_BIND"],
            "GATEWAY_PORT": str(self._api_port),
            "GATEWAY_HANDOVER": str(self.handover) if self.handover else "",
            "GATEWAY_REPLICAS": " ".join(f"http://{HOST}:{recorded[one]['port']}" for one in replicas),
            "GATEWAY_DISCOVER": "",
            "GATEWAY_VLM": f"http://{HOST}:{self._vlm_port}",
        }
        self._spawn(name, [str(self.installation.api_python), "-m", "kit.gateway"], environment, self._api_port)

    @property
    def handover(self) -> Path | None:
        """Where one gateway takes over from the other; None in a folder whose path is too long for a socket (108 bytes)."""
        path = self.run / "gateway.sock"
        return path if len(os.fsencode(path)) < 100 else None

    def stop(self, names: Sequence[str], seconds: float) -> None:
        """End these and forget them; after so many seconds by force."""
        recorded = self.recorded()
        running = [process for name in names if (process := self._process(recorded.get(name)))]
        for process in running:
            _signal_group(process, signal.SIGTERM)
        _, alive = psutil.wait_procs(running, timeout=seconds)
        for process in alive:
            _signal_group(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
        self.rename({name: None for name in names})

    def rename(self, names: Mapping[str, str | None]) -> None:
        """Keep the record of a process under another name, or forget it."""
        state = self._state()
        if not state:
            return
        recorded = {names.get(name, name): record for name, record in state["services"].items()}
        state["services"] = {name: record for name, record in recorded.items() if name}
        self._write_state(state)

    def take(self) -> None:
        """What runs now is of the present configuration."""
        self._write_state(self._state() | {"digest": self.digest(), "vlm": self.vlm_digest()})

    def recorded(self) -> dict[str, dict[str, Any]]:
        """What was started, by name: a service's, or one with a number for a further replica."""
        return self._state().get("services", {})

    def _replicas(self, service: str) -> list[str]:
        return [name for name in self.recorded() if _service_of(name) == service] or [service]

    def runs(self, name: str) -> bool:
        return self._process(self.recorded().get(name)) is not None

    def is_current_vlm(self) -> bool:
        return self._state().get("vlm") == self.vlm_digest()

    # --- the processes

    @property
    def _api_port(self) -> int:
        return int(self.settings["API_PORT"])

    @property
    def _vlm_port(self) -> int:
        return int(self.settings["PREVIEW_VLM_PORT"])

    def _vlm_command(self) -> list[str]:
        return [
            *(str(self.installation.vlm_python), "-m", "kit.preview.vlm.server"),
            *("--host", HOST, "--port", str(self._vlm_port)),
            *("--model-name", self._model_name()),
            *("--table-model", str(self.installation.table_model)),
        ]

    def _api_command(self, config: Path, host: str = "", port: int = 0) -> list[str]:
        return [
            *(str(self.installation.api_python), "-m", "paddlex", "--serve", "--pipeline", str(config)),
            *("--host", host or self.settings["API_BIND"], "--port", str(port or self._api_port), "--device", "cpu"),
        ]

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PADDLE_PDX_", "GATEWAY_"))}
        font = self.installation.font
        return kept | {
            "PYTHONPATH": str(self.root / "scripts"),
            "PYTHONUNBUFFERED": "1",
            # PaddleX and ONNX Runtime write caches below the home folder otherwise.
            "PADDLE_PDX_CACHE_HOME": str(self.run / "paddlex"),
            "XDG_CACHE_HOME": str(self.run / "cache"),
            # Two malloc arenas: 0.6 GB in use instead of 0.9 (measured on 63 pages).
            "MALLOC_ARENA_MAX": "2",
            # The API's calls to the VLM stay on this machine.
            "NO_PROXY": f"{HOST},localhost",
            "no_proxy": f"{HOST},localhost",
            # "visualize": true draws block labels; without a font at hand PaddleX
            # would fetch one from the network on every request.
            **({"PADDLE_PDX_LOCAL_FONT_FILE_PATH": str(font)} if font else {}),
        }

    def _pipeline_config(self) -> dict[str, Any]:
        path = self.settings.path("PIPELINE_CONFIG")
        try:
            official = yaml.safe_load(path.read_text())
            return overlay.overlay(
                official, layout_dir=self.installation.layout_dir, vlm_url=f"http://{HOST}:{self._vlm_port}/v1",
                behind_gateway=self.gateway,
            )  # fmt: skip
        except OSError as error:
            raise KitError(f"{path}: {error.strerror}", "PIPELINE_CONFIG in .env names it", ExitCode.USAGE) from None
        except (yaml.YAMLError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise KitError(f"{path} is not a pipeline config: {reason}", "compare it with git diff", ExitCode.USAGE) from None

    def _model_name(self) -> str:
        return str(self._pipeline_config()["SubModules"]["VLRecognition"]["model_name"])

    def _write_config(self, config: dict[str, Any]) -> Path:
        path = self.run / "pipeline_config_preview.yaml"
        _write_aside(path, yaml.safe_dump(config, sort_keys=False))
        return path

    def _spawn(self, name: str, argv: list[str], environment: dict[str, str], port: int) -> None:
        log = self._log(name)
        if log.exists():
            shutil.move(log, log.with_suffix(".log.1"))
        with log.open("w") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                cwd=self.run, env=environment, start_new_session=True,
            )  # fmt: skip
        state = self._state()
        state["services"][name] = {
            "pid": process.pid,
            "create_time": psutil.Process(process.pid).create_time(),
            "started": time.time(),
            "port": port,
        }
        self._write_state(state)

    def _require_ports(self) -> None:
        for host, port, setting in (
            (HOST, self._vlm_port, "PREVIEW_VLM_PORT"),
            (self.settings["API_BIND"], self._api_port, "API_PORT"),
        ):
            if not ports.is_free(host, port):
                raise port_taken(port, setting)

    # --- state

    def _service(self, name: str, record: dict[str, Any] | None) -> Service:
        last = (self._tail(name, 1) or [""])[0]
        if record is None:
            return Service(name, "absent")
        if self._process(record) is None:
            return Service(name, "exited", detail=f"pid {record['pid']}", last_line=last)
        at_port = name == GATEWAY or (name == API and GATEWAY not in self.recorded())
        address = self.url if at_port else f"http://{HOST}:{record['port']}"
        ready = health.answers(f"{address}/{'ready' if name == GATEWAY else 'health'}")
        seconds = time.time() - record["started"]
        return Service(name, "ready" if ready else "starting", seconds, f"pid {record['pid']}", last)

    def _process(self, record: dict[str, Any] | None) -> psutil.Process | None:
        if record is None:
            return None
        try:
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["create_time"]) < 0.01
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def digest(self) -> str:
        """Of everything that a running service has read at its start."""
        parts: dict[str, Any] = {
            "config": self._pipeline_config(),
            "settings": [self.settings[name] for name in ("API_BIND", "API_PORT", "PREVIEW_VLM_PORT")],
        }
        if self.gateway:
            parts["gateway"] = [self.settings["API_REPLICAS"], self.settings.gateway]
        return _digest_of(parts)

    def vlm_digest(self) -> str:
        """Of what the VLM server has read at its start, and of what no gateway can take over."""
        return _digest_of([self._vlm_command(), self.gateway, self.settings["API_BIND"], self.settings["API_PORT"]])

    @property
    def _state_file(self) -> Path:
        return self.run / "services.json"

    def _state(self) -> dict[str, Any]:
        try:
            return json.loads(self._state_file.read_text())
        except (OSError, ValueError):
            return {}

    def _write_state(self, state: dict[str, Any]) -> None:
        _write_aside(self._state_file, json.dumps(state, indent=1))

    def _log(self, service: str) -> Path:
        return self.logs / f"{service}.log"


def _digest_of(parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _service_of(name: str) -> str:
    """The service of which a recorded process is a replica."""
    return next((service for service in EVERY if name == service or re.fullmatch(rf"{service}-\d+", name)), name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_taken(port: int, setting: str) -> KitError:
    """The error for a port that another program holds; names that program."""
    return KitError(
        f"port {port} is held by {ports.holder(port)}",
        f"stop that program, or set another port: {setting}={port + 1} ./kit up, or in .env for good",
        ExitCode.PORT,
    )


def _signal_group(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # start_new_session made it the leader of its group


def _write_aside(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never half."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text)
    aside.replace(path)
