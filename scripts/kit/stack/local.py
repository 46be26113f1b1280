"""The CPU preview as two processes of this user: no Docker, no GPU.

The same real `paddlex --serve` as in the API image, calling the stand-in VLM
server of kit.preview.vlm. State lies in .kit/run: one JSON with pids, whose
start times guard against a pid that the system has given to another program.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from kit import health
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts import ports
from kit.preview import overlay
from kit.preview.install import Installation
from kit.stack import API, SERVICES, VLM, Report, Service, plain_lines
from kit.stack.images import Image

STOP_SECONDS = 10.0  # from SIGTERM to SIGKILL
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
        return self._state().get("url") or self.settings.api_url

    def ps(self) -> list[Service]:
        recorded = self._state().get("services", {})
        return [self._service(name, recorded.get(name)) for name in SERVICES]

    def is_current(self) -> bool:
        return self._state().get("digest") == self._digest()

    def images(self) -> list[Image]:
        return []

    def tail(self, service: str, lines: int) -> list[str]:
        try:
            text = self._log(service).read_text(errors="replace")
        except OSError:
            return []
        return plain_lines(text)[-lines:] if lines else []

    def follow(self, service: str) -> Iterator[str]:
        path = self._log(service)
        with path.open(errors="replace") as log:
            log.seek(0, os.SEEK_END)
            while True:
                if line := log.readline():
                    yield line.rstrip("\n")
                elif self._process(self._state().get("services", {}).get(service)) is None:
                    return
                else:
                    time.sleep(0.2)

    # --- what acts

    def up(self, report: Report) -> None:
        """Install what is missing, then start both processes at once.

        Raises KitError: ENVIRONMENT when the preview cannot be installed, PORT
        when another program holds a port. Nothing is left running then.
        """
        self.run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        self._require_ports()
        config = self._pipeline_config()
        self.installation.install(config, report)
        self._require_ports()
        config_file = self._write_config(config)
        self._write_state({"digest": self._digest(), "url": self.settings.api_url, "services": {}})
        self._spawn(VLM, self._vlm_command(), self._environment(), self._vlm_port)
        self._spawn(API, self._api_command(config_file), self._environment(), self._api_port)

    def down(self) -> list[str]:
        recorded = self._state().get("services", {})
        running = {name: p for name in SERVICES if (p := self._process(recorded.get(name)))}
        for process in running.values():
            _signal_group(process, signal.SIGTERM)
        _, alive = psutil.wait_procs(list(running.values()), timeout=STOP_SECONDS)
        for process in alive:
            _signal_group(process, signal.SIGKILL)
        psutil.wait_procs(alive, timeout=STOP_SECONDS)
        self._state_file.unlink(missing_ok=True)
        return list(running)

    # --- the two processes

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

    def _api_command(self, config: Path) -> list[str]:
        return [
            *(str(self.installation.api_python), "-m", "paddlex", "--serve", "--pipeline", str(config)),
            *("--host", self.settings["API_BIND"], "--port", str(self._api_port), "--device", "cpu"),
        ]

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PADDLE_PDX_"))}
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
                official, layout_dir=self.installation.layout_dir, vlm_url=f"http://{HOST}:{self._vlm_port}/v1"
            )
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
        last = (self.tail(name, 1) or [""])[0]
        if record is None:
            return Service(name, "absent")
        if self._process(record) is None:
            return Service(name, "exited", detail=f"pid {record['pid']}", last_line=last)
        address = self.url if name == API else f"http://{HOST}:{record['port']}"
        ready = health.answers(f"{address}/health")
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

    def _digest(self) -> str:
        """Of everything that a running service has read at its start."""
        parts = {
            "config": self._pipeline_config(),
            "settings": [self.settings[name] for name in ("API_BIND", "API_PORT", "PREVIEW_VLM_PORT")],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

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
