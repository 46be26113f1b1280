"""The processes that are compared: real `paddlex --serve` of the preview's environment, the VLM of set speed, the gateway."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from kit import health
from kit.errors import ExitCode, KitError
from kit.paths import ROOT
from kit.preview.install import Installation
from kit.preview.overlay import REPLICA_ENVIRONMENT, overlay

HOST = "127.0.0.1"
START_SECONDS = 120.0
HERE = Path(__file__).parent


class Process:
    """A service that answers at `url`."""

    def __init__(self, url: str, process: psutil.Popen) -> None:
        self.url = url
        self.process = process

    def cpu_seconds(self) -> float:
        """User and system time since its start, with that of its children."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system
        return total


class Stage:
    """Starts processes, ends all of them with itself. folder: for configs, logs and caches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installation = Installation(ROOT)
        self._running: list[psutil.Popen] = []

    def __enter__(self) -> Stage:
        if not self.installation.api_python.exists() or not (self.installation.layout_dir / "kit-stamp").exists():
            raise KitError("the CPU preview is not installed", "./kit up --local installs it; then ./kit down", ExitCode.START)
        return self

    def __exit__(self, *_: object) -> None:
        self._end(self._running)

    # --- configs

    def upstream_config(self) -> dict[str, Any]:
        """What PaddleX itself ships: its defaults, all pages of a PDF."""
        shipped = next(self.installation.api_venv.glob("lib/python*/site-packages/paddlex/configs/pipelines/PaddleOCR-VL.yaml"))
        return yaml.safe_load(shipped.read_text())

    def our_config(self) -> dict[str, Any]:
        return yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text())

    # --- processes

    def vlm(self, *options: str) -> Process:
        port = free_port()
        return self._spawn("vlm", [HERE / "vlm_of_set_speed.py", "--port", port, *options], port)

    def api(self, name: str, config: dict[str, Any], vlm: Process, *, set_blocks: bool, behind_gateway: bool = False) -> Process:
        """`paddlex --serve`, with the preview's layout model or with layout_of_set_blocks.py."""
        layout = self._set_blocks() if set_blocks else self.installation.layout_dir
        config = overlay(config, layout_dir=layout, vlm_url=f"{vlm.url}/v1", behind_gateway=behind_gateway)
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        port = free_port()
        argv = ["-m", "paddlex", "--serve", "--pipeline", file, "--host", HOST, "--port", port, "--device", "cpu"]
        return self._spawn(name, argv, port, REPLICA_ENVIRONMENT if behind_gateway else {})

    def fake_api(self, vlm: Process, seconds: float) -> Process:
        """A fake API that takes `seconds` for a page, always: beside it what a gateway adds is no noise."""
        port = free_port()
        fake = ROOT / "tests" / "fakes" / "fake_replica.py"
        return self._spawn("fake-api", [fake, "--port", port, "--vlm", vlm.url, "--seconds", seconds], port)

    def _set_blocks(self) -> Path:
        folder = self.folder / "layout-of-set-blocks"
        if not folder.exists():
            argv = [str(self.installation.api_python), str(HERE / "layout_of_set_blocks.py"), str(folder)]
            subprocess.run(argv, env=self._environment(), check=True)
        return folder

    @contextlib.contextmanager
    def together(self, processes: Sequence[Process]) -> Iterator[Sequence[Process]]:
        """Wait for these; end them with the block."""
        try:
            self.wait(processes)
            yield processes
        finally:
            self._end([process.process for process in processes])

    @contextlib.contextmanager
    def gateway(self, replicas: Sequence[Process], vlm: Process) -> Iterator[Process]:
        """The kit's gateway in front of these, for a while."""
        port = free_port()
        argv = ["-m", "kit.gateway", "--vlm", f"{vlm.url}/v1", "--host", HOST, "--port", port]
        for replica in replicas:
            argv += ["--replica", replica.url]
        with self.together([self._spawn(f"gateway-{len(replicas)}", argv, port)]) as (gateway,):
            yield gateway

    def wait(self, processes: Sequence[Process]) -> None:
        """Until all of them answer. Raises KitError (START) with the end of a log when one does not."""
        end = time.monotonic() + START_SECONDS
        for started in processes:
            while not health.answers(f"{started.url}/health"):
                if started.process.poll() is not None or time.monotonic() > end:
                    raise KitError(f"{started.url} did not start", f"its log is in {self.folder}", ExitCode.START)
                time.sleep(0.2)

    def _spawn(self, name: str, arguments: Sequence[object], port: int, environment: dict[str, str] | None = None) -> Process:
        argv = [str(self.installation.api_python), *map(str, arguments)]
        with (self.folder / f"{name}.log").open("a") as log:
            process = psutil.Popen(
                argv, env=self._environment() | (environment or {}), cwd=self.folder, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self._running.append(process)
        return Process(f"http://{HOST}:{port}", process)

    def _environment(self) -> dict[str, str]:
        # As kit.stack.local starts the preview.
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PADDLE_PDX_"))}
        return kept | {
            "PYTHONPATH": str(ROOT / "scripts"),
            "PADDLE_PDX_CACHE_HOME": str(self.folder / "paddlex"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "MALLOC_ARENA_MAX": "2",
            "NO_PROXY": HOST,
            "no_proxy": HOST,
            "PADDLE_PDX_LOCAL_FONT_FILE_PATH": str(self.installation.font),
        }

    def _end(self, processes: Sequence[psutil.Popen]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, alive = psutil.wait_procs(processes, timeout=10)
        for process in alive:
            process.kill()
        psutil.wait_procs(alive, timeout=10)
        self._running = [process for process in self._running if process not in processes]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def get(vlm: Process, path: str) -> dict[str, Any]:
    return httpx.get(vlm.url + path, trust_env=False).raise_for_status().json()


def set_speed(vlm: Process, speed: dict[str, Any]) -> None:
    httpx.post(f"{vlm.url}/speed", json=speed, trust_env=False).raise_for_status()
