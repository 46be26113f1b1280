"""A bundle against plain `docker save` and `docker load`: seconds, bytes, disk and memory, on the same images in one run.

    .kit/test-venv/bin/python scripts/bench/bundle.py [--engine current|debian] [--gib N] [--rounds N]

Runs as root on a private engine of the tests' own (tests/docker/engine.py install). The images are built there: two that share
a layer, of this machine's own Python packages and programs, with 40 % of random bytes among them, which nothing compresses.
Takes some minutes and five times the images' size of disk. Both ways begin with warm caches, one after the other, alone:

export  `docker save A B | gzip > FILE`       against  ./kit export DIR --no-kit --part-size 256MiB
load    `docker load < FILE`, not compressed  against  ./kit load DIR, each on an engine without these images

Sampled while the kit runs, four times a second: the extra disk (every file of the bundle's folder that is not in its place
yet, of the folder for temporary files, of .kit, and open files without a name), the engine's own staging, and the memory (PSS:
pages shared by several processes are counted once) of ./kit with all its child processes, `docker` among them.
Exits with 1 when one of the limits in the table's last column does not hold.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests"), str(ROOT / "tests" / "docker")]

from carried_images import Carried, real_files  # noqa: E402
from engine import FLAVOURS, Engine, private_engine  # noqa: E402
from support import Workspace, make_workspace  # noqa: E402

IMAGES = Carried(registry="kit.test/bench")
NOISE = 0.4
SHARED, OWN = 0.6, 0.2  # of the size of what `docker save` writes: a common layer, and one of each image's own
SOURCES = [Path(sys.prefix), Path(os.__file__).parent, ROOT / ".kit" / "preview", ROOT / ".kit" / "test-engines"]
EVERY = 0.25  # seconds: at 0.05, looking took 2.3 s of the processors' time in the 14 s that were measured
PART = 256 * 2**20  # bytes
MB = 10**6
COMMAND_SECONDS = 1800.0


@dataclass
class Peaks:
    """Bytes. extra: disk beyond the bundle. staging: the engine's. memory: PSS of the tree. python: VmHWM of ./kit itself."""

    extra: int = 0
    staging: int = 0
    memory: int = 0
    python: int = 0


@dataclass
class Way:
    """The measurements of one way: seconds, a value for each round, and the highest peaks of all rounds."""

    seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    peaks: Peaks = field(default_factory=Peaks)

    def add(self, seconds: float, peaks: Peaks | None = None) -> None:
        """One round."""
        self.seconds.append(seconds)
        for name, value in vars(peaks or Peaks()).items():
            setattr(self.peaks, name, max(getattr(self.peaks, name), value))

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


class Sampler:
    """Looks at a running process, its children and the places where it may write."""

    def __init__(self, process: subprocess.Popen[bytes], bundle: Path, places: list[Path], staging: Path) -> None:
        self.peaks = Peaks()
        self._root = psutil.Process(process.pid)
        self._bundle, self._places, self._staging = bundle, places, staging
        self._before = self._extra([])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> Peaks:
        self._over.set()
        self._thread.join()
        return self.peaks

    def _run(self) -> None:
        while not self._over.wait(EVERY):
            with suppress(psutil.Error):
                tree = [self._root, *self._root.children(recursive=True)]
                self.peaks.memory = max(self.peaks.memory, sum(map(_pss, tree)))
                self.peaks.python = max(self.peaks.python, _high_water(self._root.pid))
                self.peaks.extra = max(self.peaks.extra, self._extra(tree) - self._before)
            self.peaks.staging = max(self.peaks.staging, _used(self._staging))

    def _extra(self, tree: list[psutil.Process]) -> int:
        hidden = sum(_used(path) for path in self._bundle.glob(".*")) if self._bundle.exists() else 0
        return hidden + sum(map(_used, self._places)) + sum(map(_nameless, tree))


def _pss(process: psutil.Process) -> int:
    try:
        return process.memory_full_info().pss
    except psutil.Error:  # has just ended
        return 0


def _high_water(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def _used(place: Path) -> int:
    """Bytes on disk of a file, or of all files below a folder."""
    total = 0
    with suppress(OSError):
        for entry in [place] if place.is_file() else place.rglob("*"):
            with suppress(OSError):
                info = entry.lstat()
                total += info.st_blocks * 512
    return total


def _nameless(process: psutil.Process) -> int:
    """Open files that were deleted or never had a name. In memory (memfd, a pipe's pages) there is no disk behind them."""
    total = 0
    with suppress(OSError):
        for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
            with suppress(OSError):
                name = str(descriptor.readlink())
                if name.startswith("/") and name.endswith(" (deleted)") and not name.startswith(("/memfd:", "/dev/")):
                    total += descriptor.stat().st_blocks * 512
    return total


class Bench:
    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.references = list(IMAGES.references.values())
        self.temporary = folder / "tmp"
        self.bundle = folder / "bundle"
        self.space = self._make_space()

    def _make_space(self) -> Workspace:
        (self.folder / "clone").mkdir()
        self.temporary.mkdir()
        space = make_workspace(self.folder / "clone")
        (space.path / ".env").write_text("".join(f"{name}={value}\n" for name, value in IMAGES.settings.items()))
        space.environment = {**space.environment, **self.engine.environment, "TMPDIR": str(self.temporary)}
        return space

    def shell(self, command: str) -> float:
        """Seconds of a shell command."""
        return timed(lambda: _check(self.engine.call(["bash", "-o", "pipefail", "-c", command], timeout=COMMAND_SECONDS)))

    def kit(self, *words: str | Path) -> tuple[float, Peaks]:
        """Seconds of ./kit, and what it took meanwhile."""
        os.sync()
        log = self.folder / "kit.log"
        places = [self.temporary, *(path for path in (self.space.path / ".kit").iterdir() if not path.is_symlink())]
        with log.open("wb") as talk:
            began = time.monotonic()
            process = subprocess.Popen(
                [self.space.path / "kit", *words], env=self.space.environment, cwd=self.space.path,
                stdin=subprocess.DEVNULL, stdout=talk, stderr=talk,
            )  # fmt: skip
            sampler = Sampler(process, self.bundle, places, self.engine.work / "data" / "tmp")
            status = process.wait()
            seconds = time.monotonic() - began
            peaks = sampler.stop()
        if status:
            raise SystemExit(f"./kit {words[0]} → {status}\n{log.read_text()[-3000:]}")
        return seconds, peaks

    def forget(self) -> None:
        """Remove the images and their layers."""
        listed = self.engine.docker(
            "images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={IMAGES.registry}/*"
        )
        if listed.split():
            self.engine.docker("rmi", "--force", *listed.split())
        self.engine.docker("image", "prune", "--force")

    def ids(self) -> list[str]:
        return [self.engine.docker("image", "inspect", "--format", "{{.Id}}", name).strip() for name in self.references]


def timed(act: Callable[[], object]) -> float:
    os.sync()
    began = time.monotonic()
    act()
    return time.monotonic() - began


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} → {done.returncode}\n{done.stderr[-3000:]}")


def measure(bench: Bench, rounds: int) -> dict[str, Way]:
    ways = {name: Way() for name in ("save", "gzip", "export", "docker load", "kit load")}
    names, folder = " ".join(bench.references), bench.folder
    plain, packed = folder / "plain.tar", folder / "packed.tar.gz"
    bench.shell(f"docker save -o {plain} {names}")  # also warms the caches
    ids = bench.ids()
    for _ in range(rounds):
        ways["save"].add(bench.shell(f"docker save {names} > /dev/null"))
        ways["gzip"].add(bench.shell(f"docker save {names} | gzip > {packed}"))
        shutil.rmtree(bench.bundle, ignore_errors=True)
        ways["export"].add(*bench.kit("export", bench.bundle, "--no-kit", "--part-size", f"{PART // 2**20}MiB"))
    ways["save"].bytes, ways["gzip"].bytes = plain.stat().st_size, packed.stat().st_size
    ways["export"].bytes = sum(path.stat().st_size for path in bench.bundle.iterdir())
    packed.unlink()
    for _ in range(rounds):
        for way in ("docker load", "kit load"):
            bench.forget()
            if way == "kit load":
                ways[way].add(*bench.kit("load", bench.bundle))
            else:
                ways[way].add(bench.shell(f"docker load < {plain}"))
            if bench.ids() != ids:
                raise SystemExit(f"error: {way} gave other images than were saved")
    return ways


def table(ways: dict[str, Way]) -> tuple[str, bool]:
    """Markdown, and whether every limit holds."""
    gzip, export, plain, load = (ways[name] for name in ("gzip", "export", "docker load", "kit load"))
    extra = max(export.peaks.extra, load.peaks.extra)
    memory = max(export.peaks.memory, load.peaks.memory)
    limits = [
        ("export, seconds", f"{gzip.median:.1f}", f"{export.median:.1f}", gzip.median / export.median, "≥ 3 times faster",
         export.median * 3 <= gzip.median),
        ("size, MB", f"{gzip.bytes / MB:.0f}", f"{export.bytes / MB:.0f}", gzip.bytes / export.bytes, "no larger",
         export.bytes <= gzip.bytes),
        ("load, seconds", f"{plain.median:.1f}", f"{load.median:.1f}", plain.median / load.median, "no slower",
         load.median <= plain.median),
        ("extra disk, MB", "", f"{extra / MB:.1f}", None, f"≤ one part ({PART / MB:.1f} MB)", extra <= PART),
        ("memory of ./kit and its children, MB", "", f"{memory / MB:.0f}", None, "≤ 200 MB", memory <= 200 * MB),
    ]  # fmt: skip
    lines = ["| | plain Docker | ./kit | ratio | must hold |", "|---|---:|---:|---:|---|"]
    for name, baseline, ours, ratio, limit, holds in limits:
        times = f"{ratio:.2f}" if ratio else ""
        lines.append(f"| {name} | {baseline} | {ours} | {times} | {limit}: {'yes' if holds else '**no**'} |")
    return "\n".join(lines), all(limit[-1] for limit in limits)


def details(ways: dict[str, Way]) -> str:
    save, export, load = ways["save"], ways["export"], ways["kit load"]
    lines = [f"`docker save > /dev/null` alone: {save.median:.1f} s, {save.bytes / MB:.0f} MB"]
    for name, way in (("export", export), ("load", load)):
        peaks = way.peaks
        lines.append(
            f"./kit {name}: extra disk {peaks.extra / MB:.0f} MB, the engine's staging {peaks.staging / MB:.0f} MB, "
            f"memory {peaks.memory / MB:.0f} MB, of its Python alone {peaks.python / MB:.0f} MB"
        )
    return "\n".join([*lines, *(f"{name}: {' '.join(f'{value:.1f}' for value in way.seconds)} s" for name, way in ways.items())])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", choices=FLAVOURS, default="current", help="Debian's own, or one of 25 or newer (current)")
    parser.add_argument("--gib", type=float, default=2.4, help="size of what docker save writes (2.4)")
    parser.add_argument("--rounds", type=int, default=1, metavar="N")
    options = parser.parse_args()
    size = options.gib * 2**30
    with private_engine(options.engine) as engine, tempfile.TemporaryDirectory(prefix="kit-bench-") as folder:
        IMAGES.make(engine, shared=int(size * SHARED), own=int(size * OWN), fill=real_files(NOISE, SOURCES))
        bench = Bench(engine, Path(folder))
        ways = measure(bench, options.rounds)
        text, holds = table(ways)
        print(f"Docker {engine.version}, {os.cpu_count()} cores, {options.rounds} round(s)\n\n{text}\n\n{details(ways)}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
