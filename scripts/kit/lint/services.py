"""The two roles in a Compose project, whatever the services are called: who serves the API, and who serves the VLM."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from kit.lint import build as builds
from kit.lint.commands import Command, Word, commands
from kit.lint.findings import Place
from kit.lint.interpolate import Environment
from kit.lint.tree import Mapping, Node, Scalar, Sequence, find, scalar

IMAGE_HOME = PurePosixPath("/home/paddleocr")  # home and working folder of the official images
OWN_CONFIG = IMAGE_HOME / "pipeline_config_vllm.yaml"  # what the API image's own command loads
API_IMAGE = "paddleocr-vl"
VLM_IMAGE = re.compile(r"paddle(?:ocr|x)-genai-(\w+)-server")
PLAIN_IMAGES = {"vllm-openai": ("vllm", ("vllm", "serve")), "sglang": ("sglang", ()), "llama.cpp": ("llama-cpp", ())}


@dataclass(frozen=True)
class Image:
    """An image reference in its parts. name: the last part of the repository."""

    scalar: Scalar
    name: str
    tag: str
    digest: str

    @property
    def official(self) -> bool:
        return self.name == API_IMAGE or (self.name.startswith("paddleocr-") and bool(VLM_IMAGE.fullmatch(self.name)))

    @property
    def tag_place(self) -> Place:
        return self.scalar.where(self.tag or self.name)


@dataclass(frozen=True)
class Mount:
    """A mount of a file or folder. named: its source is a named volume. makes_folder: Docker makes a missing source.

    base: the folder to which the source is relative.
    """

    source: str
    target: PurePosixPath
    source_place: Place
    target_place: Place
    named: bool
    makes_folder: bool
    base: Path


@dataclass(frozen=True)
class Published:
    """A port on the host. address: "" is every address. host, container: empty where Compose chooses, or no number."""

    address: str
    host: str
    container: str
    place: Place

    @property
    def to_the_world(self) -> bool:
        return self.address in ("", "0.0.0.0", "::", "[::]")


@dataclass
class Service:
    """One service. processes: every server that its container starts. files: the Compose files that were chosen."""

    name: str
    node: Mapping
    place: Place
    files: list[Path]
    image: Image | None
    processes: list[Command]
    build: builds.Build | None = None
    mounts: list[Mount] = field(default_factory=list)
    ports: list[Published] = field(default_factory=list)

    def get(self, *path: str) -> Node | None:
        return find(self.node, *path)

    def scalar(self, *path: str) -> Scalar | None:
        return scalar(self.node, *path)

    def key(self, name: str) -> Place:
        return self.node.keys.get(name, self.place)

    @property
    def replicas(self) -> int:
        """How many containers of it are started; 1 where that is no number."""
        count = self.scalar("deploy", "replicas") or self.scalar("scale")
        return int(count.text) if count and count.text.isdigit() else 1

    def path(self, written: Scalar) -> Path:
        """A path as Compose takes it."""
        return _base(written.place, self.files) / written.text

    @property
    def host_network(self) -> bool:
        mode = self.scalar("network_mode")
        return mode is not None and mode.text == "host"

    def mounted(self, path: PurePosixPath) -> tuple[Mount, Path] | None:
        """The mount that brings `path` into the container, and the file on this machine."""
        best = None
        for mount in self.mounts:
            if (path == mount.target or mount.target in path.parents) and (
                best is None or len(mount.target.parts) > len(best.target.parts)
            ):
                best = mount
        if best is None or best.named:
            return None
        return best, best.base / Path(best.source).expanduser() / path.relative_to(best.target)


def services(root: Mapping, files: list[Path], environment: Environment) -> list[Service]:
    """Every service; paths are relative to the first file's folder, or to that of an included file."""
    found = find(root, "services")
    return [
        _service(name, node, found.keys[name], files, environment)
        for name, node in (found.items.items() if isinstance(found, Mapping) else ())
        if isinstance(node, Mapping)
    ]


def _service(name: str, node: Mapping, place: Place, files: list[Path], environment: Environment) -> Service:
    source = find(node, "build")
    build = builds.read(source, _base(source.place, files), environment) if source else None
    written = build.image if build and build.image else scalar(node, "image")
    image = parse_image(written) if written else None
    entrypoint, command = find(node, "entrypoint"), find(node, "command")
    if build:
        command = command or (build.command if entrypoint is None else None)
        entrypoint = entrypoint or build.entrypoint
    processes = commands(entrypoint, command)
    if image and image.name in PLAIN_IMAGES and entrypoint is None:
        program = [Word(text, image.scalar, False) for text in PLAIN_IMAGES[image.name][1]]
        processes = [Command((*program, *process.words)) for process in processes] or [Command(tuple(program))]
    if build:
        processes = [inner for process in processes for inner in (builds.scripts(process, build) or [process])]
    return Service(
        name, node, place, files, image, [process for process in processes if process.words], build,
        list(_mounts(find(node, "volumes"), files)), list(_ports(find(node, "ports"))),
    )  # fmt: skip


def _base(place: Place, files: list[Path]) -> Path:
    """The folder to which a path that is written at `place` is relative."""
    return files[0].parent if place.file in files else place.file.parent


def parse_image(written: Scalar) -> Image:
    reference, _, digest = written.text.partition("@")
    repository, colon, tag = reference.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = reference, ""
    return Image(written, repository.rpartition("/")[2], tag, digest)


def _mounts(node: Node | None, files: list[Path]) -> Iterator[Mount]:
    for item in node.items if isinstance(node, Sequence) else ():
        if isinstance(item, Scalar):
            match = re.match(r"((?:[A-Za-z]:[\\/])?[^:]+):([^:]+)", item.text)
            if match:
                source, target = match[1], match[2]
                named = not source.startswith((".", "/", "~")) and not re.match(r"[A-Za-z]:[\\/]", source)
                base = _base(item.place, files)
                yield Mount(source, PurePosixPath(target), item.where(source), item.where(target), named, True, base)
        elif (target := scalar(item, "target")) and (source := scalar(item, "source")):
            kind = scalar(item, "type")
            create = scalar(item, "bind", "create_host_path")
            yield Mount(
                source.text, PurePosixPath(target.text), source.where(source.text), target.where(target.text),
                kind is not None and kind.text == "volume", create is None or create.value is not False,
                _base(source.place, files),
            )  # fmt: skip


def _ports(node: Node | None) -> Iterator[Published]:
    for item in node.items if isinstance(node, Sequence) else ():
        if isinstance(item, Scalar):
            text = item.text.partition("/")[0]
            address, _, rest = text.rpartition("]:") if text.startswith("[") else ("", "", text)
            parts = rest.split(":")
            container = parts.pop()
            host = parts.pop() if parts else ""
            yield Published(parts[0] if parts else address.lstrip("["), host, container, item.where(text))
        elif isinstance(item, Mapping):
            host, target = scalar(item, "published"), scalar(item, "target")
            address = scalar(item, "host_ip")
            place = (host or target or Scalar(None, item.place)).place
            yield Published(address.text if address else "", host.text if host else "", target.text if target else "", place)
