"""manifest.json: what a bundle holds, and what each of its bytes must be. Pure, but for reading and writing the file."""

from __future__ import annotations

import hashlib
import json
import re
import typing
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from kit.bundle import archive
from kit.errors import ExitCode, KitError

FORMAT = 1
NAME, SUMS, README, KIT = "manifest.json", "SHA256SUMS", "README.txt", "kit.tar.gz"
IMAGES, MODELS = "images.tar.zst", "models.tar.zst"  # streams; their parts are NAME.000, NAME.001, …
LAYER, CONFIG, INDEX, FOLDERS = "layer", "config", "index", "models"
GPU, PREVIEW = "gpu", "preview"

# In .env: which images, and the model that they are asked for. An export writes these settings, and a load takes no other.
NAMED_BY = ("IMAGE_REGISTRY", "API_IMAGE_TAG_SUFFIX", "VLM_IMAGE_TAG_SUFFIX", "VLM_BACKEND", "VLM_MODEL_NAME")
# Nothing that .env or Compose would read otherwise.
SETTING = re.compile(r"[A-Za-z0-9_.:/@+-]*")
# No folder, no `..`, nothing that a shell or a Windows disk would read otherwise.
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


@dataclass(frozen=True)
class File:
    """A file of the bundle. size: bytes; sha256: of its content, hex."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Frame:
    """Some bytes of a stream that are packed alone: one member of the tar archive that the stream is.

    stream: IMAGES or MODELS. kind: LAYER, CONFIG, INDEX (docker's own manifest.json and the end of the archive), or FOLDERS
    (a whole tar archive). name: digest of the member's content, where it has one. path: of the member. offset, size: bytes in the
    stream, packed. raw: bytes unpacked, of the whole member. sha256: of the packed bytes, hex.
    """

    stream: str
    kind: str
    name: str
    path: str
    offset: int
    size: int
    raw: int
    sha256: str


@dataclass(frozen=True)
class Image:
    """One image.

    service: that runs it. reference: NAME:TAG as Compose asks for it. config: digest of its configuration, which is its id in an
    engine without containerd's store. layers: digests of its unpacked layers, lowest first. digests: under which its registry
    gave it out. size: bytes, unpacked. model: that it carries inside, "" where none is known.
    """

    service: str
    reference: str
    config: str
    layers: tuple[str, ...]
    digests: tuple[str, ...]
    size: int
    model: str


@dataclass(frozen=True)
class Requires:
    """What a GPU host needs for these images. cuda: least version that nvidia-smi must show; driver: the first that serves it;
    backend: of the VLM server; capabilities: compute capabilities of the cards that they run on."""

    cuda: str
    driver: str
    backend: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True)
class Base:
    """The bundle that has the layers which this one leaves out. manifest: SHA-256 of its manifest.json, hex."""

    manifest: str
    created: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Folder:
    """A model folder. size: bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """A bundle.

    platform: such as linux/amd64. settings: of .env, which name these images. files: every file of the bundle but this one, SUMS
    and signatures; a stream's parts in their order.
    """

    format: int
    kit: str
    created: str
    kind: str
    platform: str
    settings: dict[str, str]
    requires: Requires | None
    images: tuple[Image, ...]
    bases: tuple[Base, ...]
    models: tuple[Folder, ...]
    frames: tuple[Frame, ...]
    files: tuple[File, ...]

    def parts(self, stream: str) -> tuple[File, ...]:
        return tuple(file for file in self.files if is_part(file.name, stream))

    def frame(self, kind: str, name: str) -> Frame | None:
        return next((frame for frame in self.frames if frame.kind == kind and frame.name == name), None)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def part_name(stream: str, number: int) -> str:
    return f"{stream}.{number:03d}"


def is_part(name: str, stream: str) -> bool:
    return re.fullmatch(re.escape(stream) + r"\.\d{3,}", name) is not None


# --- the file


def dumps(manifest: Manifest) -> str:
    return json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n"


def read(folder: Path) -> Manifest:
    """The manifest of the bundle in `folder`. Raises KitError (INPUT) when there is none, or it is not whole."""
    path = folder / NAME
    if not folder.is_dir():
        raise KitError(f"{folder} is no folder", "give the folder that ./kit export wrote", ExitCode.INPUT)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        unfinished = any(folder.glob(f"{IMAGES}.*"))
        raise KitError(
            f"{folder} has no {NAME}: {'its export was not finished' if unfinished else 'it is no bundle'}",
            f"./kit export {folder} continues it" if unfinished else "give the folder that ./kit export wrote",
            ExitCode.INPUT,
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from error
    return loads(text, path)


def loads(text: str, path: Path) -> Manifest:
    """Raises KitError (INPUT) where anything is missing, of the wrong kind, or contradicts itself."""
    try:
        data = json.loads(text)
        if isinstance(data, dict) and isinstance(data.get("format"), int) and data["format"] > FORMAT:
            raise KitError(
                f"{path} has format {data['format']}, this kit reads {FORMAT}", "use the kit inside the bundle", ExitCode.INPUT
            )
        manifest = _typed(Manifest, data, "")
        _check(manifest)
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    return manifest


def damaged(path: Path, why: str) -> KitError:
    return KitError(
        f"{path} is damaged: {why}", "copy the bundle once more; ./kit verify names each file that differs", ExitCode.INPUT
    )


def sums(files: Iterable[File], manifest: str) -> str:
    """The text of SHA256SUMS, as `sha256sum -c` reads it. manifest: the text of manifest.json."""
    lines = [f"{file.sha256}  {file.name}\n" for file in files]
    return "".join([*lines, f"{hashlib.sha256(manifest.encode()).hexdigest()}  {NAME}\n"])


# --- checks


def _check(manifest: Manifest) -> None:
    if manifest.format != FORMAT or manifest.kind not in (GPU, PREVIEW):
        raise ValueError(f"format {manifest.format}, kind {manifest.kind!r}")
    for name, value in manifest.settings.items():
        if name not in NAMED_BY or not SETTING.fullmatch(value):
            raise ValueError(f"the setting {name!r}")
    names = [file.name for file in manifest.files]
    for file in manifest.files:
        if not _FILE_NAME.fullmatch(file.name) or file.name in (NAME, SUMS):
            raise ValueError(f"{file.name!r} is no name of a file in a bundle")
        if not _HEX.fullmatch(file.sha256) or file.size < 0:
            raise ValueError(f"size or SHA-256 of {file.name}")
    if len(set(names)) != len(names):
        raise ValueError("a file is listed twice")
    for stream in (IMAGES, MODELS):
        parts = [name for name in names if is_part(name, stream)]
        if parts != [part_name(stream, number) for number in range(len(parts))]:
            raise ValueError(f"the parts of {stream} are not complete, or not in order")
        _check_frames(stream, [frame for frame in manifest.frames if frame.stream == stream], manifest.parts(stream))
    if any(frame.stream not in (IMAGES, MODELS) for frame in manifest.frames):
        raise ValueError("a frame of an unknown stream")
    if not manifest.images:
        raise ValueError("no image")
    held = {frame.name for frame in manifest.frames if frame.kind == LAYER}
    for image in manifest.images:
        digests = (image.config, *image.layers)
        if not all(_DIGEST.fullmatch(digest) for digest in digests) or not image.layers:
            raise ValueError(f"the digests of {image.reference}")
        if not re.fullmatch(r"[\w.:/@-]+", image.reference, re.ASCII) or image.reference.startswith("-"):
            raise ValueError(f"{image.reference!r} is no name of an image")
        if not manifest.frame(CONFIG, image.config) or (not manifest.bases and not held.issuperset(image.layers)):
            raise ValueError(f"{image.reference} is not complete")


def _check_frames(stream: str, frames: Sequence[Frame], parts: Sequence[File]) -> None:
    at = 0
    for frame in frames:
        if frame.offset != at or frame.size <= 0 or frame.raw < 0 or not _HEX.fullmatch(frame.sha256):
            raise ValueError(f"the frames of {stream}")
        if frame.kind in (LAYER, CONFIG) and not _DIGEST.fullmatch(frame.name):
            raise ValueError(f"the frames of {stream}")
        if frame.kind == CONFIG and frame.raw > archive.DOCUMENT:  # it is read whole
            raise ValueError(f"the frames of {stream}")
        at += frame.size
    if at != sum(part.size for part in parts):
        raise ValueError(f"the parts of {stream} have another size than what they hold")


def _typed(kind: type[T], value: Any, where: str) -> T:
    """`value` of json.loads as a `kind`, every key of it there and of its type. Raises ValueError."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        names = {field.name for field in fields(kind)}
        if not isinstance(value, dict) or not names <= value.keys():
            missing = sorted(names - value.keys()) if isinstance(value, dict) else ["all"]
            raise ValueError(f"{where or 'it'} lacks {', '.join(missing)}")
        hints = get_type_hints(kind)
        return kind(**{name: _typed(hints[name], value[name], f"{where}.{name}".lstrip(".")) for name in names})
    if origin is tuple and isinstance(value, list):
        return tuple(_typed(inner[0], entry, f"{where}[{n}]") for n, entry in enumerate(value))  # type: ignore[return-value]
    if origin is dict and isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values()):
        return value  # type: ignore[return-value]
    if type(None) in inner:
        other = next(entry for entry in inner if entry is not type(None))
        return None if value is None else _typed(other, value, where)  # type: ignore[return-value]
    if kind in (int, str) and type(value) is kind:
        return typing.cast(T, value)
    raise ValueError(f"{where} is of the wrong kind")
