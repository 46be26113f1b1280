"""Images to carry in a bundle: two that share a layer, under the names that compose.yaml asks for, made without a registry.

Each holds checksums of its own files, so that running it tells a whole image from a damaged one.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine import Engine
from kit.stack import API, SERVICES, VLM

APPLETS = ("sh", "sleep", "true", "cat", "sha256sum")
SUMS = "/carried/sums"
FILE_BYTES = 4 * 2**20
BUILD_SECONDS = 600.0
EPOCH = 1_700_000_000  # time of every file
Fill = Callable[[Path, int], None]


@dataclass(frozen=True)
class Carried:
    """Two images of a project. settings: the lines of .env that name them. references: by service."""

    registry: str = "kit.test/carried"
    tag: str = "paddleocr3.6-nvidia-gpu-offline"
    settings: dict[str, str] = field(init=False)
    references: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        names = {"IMAGE_REGISTRY": self.registry, "API_IMAGE_TAG_SUFFIX": self.tag, "VLM_IMAGE_TAG_SUFFIX": self.tag}
        repositories = {API: "paddleocr-vl", VLM: "paddleocr-genai-vllm-server"}
        object.__setattr__(self, "settings", names)
        object.__setattr__(
            self, "references", {service: f"{self.registry}/{repositories[service]}:{self.tag}" for service in SERVICES}
        )

    def make(self, engine: Engine, *, shared: int, own: int, fill: Fill, release: str = "") -> None:
        """Build both. shared, own: bytes of the common layer, and of each image's. release: changes the own layers alone."""
        with tempfile.TemporaryDirectory(prefix="kit-carried-") as folder:
            base = _make_base(engine, Path(folder), shared, fill, name=f"{self.registry}/base:{shared}")
            for service, reference in self.references.items():
                context = Path(folder) / service
                context.mkdir()
                fill(context / "own", own)
                (context / "own" / "release").write_text(release)
                _build(engine, context, base, reference, "own")


def compressible_mix(noise: float, seed: int = 0) -> Fill:
    """Files of text-like lines of which the share `noise`, 0 to 1, is random bytes instead."""
    generator = random.Random(seed)

    def fill(folder: Path, size: int) -> None:
        folder.mkdir()
        for number, part in enumerate(_parts(size)):
            random_bytes = int(part * noise)
            lines = f"block {number} label text score 0.{generator.randrange(10**6)} polygon {generator.random()}\n".encode()
            text = (lines * (part // len(lines) + 1))[: part - random_bytes]
            (folder / f"{number:03}").write_bytes(generator.randbytes(random_bytes) + text)

    return fill


def real_files(noise: float, sources: list[Path], seed: int = 0) -> Fill:
    """Copies of regular files below `sources`, which compress as software does; the share `noise` is random bytes instead.

    Goes on where it stopped, so that layers differ, and starts over when all were used; a repetition is then much
    farther away than any window of gzip or zstd.
    """
    generator = random.Random(seed)
    found = sorted(path for source in sources for path in source.rglob("*") if path.is_file() and not path.is_symlink())

    def endless() -> Iterator[Path]:
        while True:
            yield from found

    files = endless()

    def fill(folder: Path, size: int) -> None:
        folder.mkdir()
        for number, part in enumerate(_parts(int(size * noise))):
            (folder / f"random-{number:04}").write_bytes(generator.randbytes(part))
        written, number = int(size * noise), 0
        while written < size:
            target = folder / f"{number // 500:03}" / f"{number:06}"
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(next(files), target)
            written += target.stat().st_size
            number += 1

    return fill


def is_whole(engine: Engine, reference: str) -> bool:
    """False when the engine has no such image. Raises AssertionError when it has one that does not run or is damaged."""
    if engine.call(["docker", "image", "inspect", reference]).returncode:
        return False
    told = engine.docker("run", "--rm", "--network", "none", reference, "sh", "-c", f"sha256sum -c {SUMS}/* && echo whole")
    assert told.endswith("whole\n"), told[-300:]
    return True


def _parts(size: int) -> list[int]:
    return [min(FILE_BYTES, size - at) for at in range(0, size, FILE_BYTES)]


def _make_base(engine: Engine, folder: Path, shared: int, fill: Fill, name: str) -> str:
    """Busybox and the common layer, once an engine."""
    if engine.docker("images", "--quiet", name):
        return name
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir(mode=0o1777)
    shutil.copy2(shutil.which("busybox") or "busybox", root / "bin" / "busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    _same_times(root)
    archive = folder / "base.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(root, arcname=".")
    engine.docker("import", "--change", 'CMD ["sleep", "3600"]', str(archive), f"{name}-busybox")
    context = folder / "shared"
    context.mkdir()
    fill(context / "shared", shared)
    _build(engine, context, f"{name}-busybox", name, "shared")
    return name


def _build(engine: Engine, context: Path, base: str, name: str, layer: str) -> None:
    """FROM base, the folder `layer` of the context and its checksums; one layer."""
    _write_sums(context, layer)
    _same_times(context)
    (context / "Dockerfile").write_text(f"FROM {base}\nCOPY root /\n")
    (context / ".dockerignore").write_text("")
    environment = engine.environment | {"DOCKER_BUILDKIT": "0"}
    engine.docker("build", "--quiet", "--tag", name, str(context), env=environment, timeout=BUILD_SECONDS)
    shutil.rmtree(context)


def _same_times(root: Path) -> None:
    """The same files give the same layer, whenever they were made."""
    for path in (root, *root.rglob("*")):
        os.utime(path, (EPOCH, EPOCH), follow_symlinks=False)


def _write_sums(context: Path, layer: str) -> None:
    """Move the layer to root/carried/ and write root/carried/sums/LAYER, as sha256sum -c reads it."""
    carried = context / "root" / "carried"  # a folder below what is copied keeps its time
    (carried / "sums").mkdir(parents=True)
    (context / layer).rename(carried / layer)
    paths = sorted(path for path in (carried / layer).rglob("*") if path.is_file())
    lines = [f"{_sha256(path)}  /carried/{path.relative_to(carried)}\n" for path in paths]
    (carried / "sums" / layer).write_text("".join(lines))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
