"""./kit load: the images of a bundle into the engine, each byte checked on its way, names given last."""

from __future__ import annotations

import contextlib
import json
import tarfile
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import zstandard

from kit import console
from kit.bundle import archive, engine
from kit.bundle import manifest as manifests
from kit.bundle.manifest import CONFIG, FOLDERS, LAYER, Base, Frame, Image, Manifest
from kit.bundle.parts import CHUNK, broken, culprit, hash_of, packed
from kit.bundle.progress import Progress
from kit.bundle.wheel_set import MACHINES
from kit.errors import ExitCode, KitError
from kit.facts.disk import space
from kit.facts.docker import Engine

LOADING = "paddleocr-vl-kit/loading"  # repository of the names that images have until all of them are whole
SHARED = "what they share"

Place = tuple[Path, Manifest, Frame]  # folder of a bundle, what it holds, and the member in question


@dataclass(frozen=True)
class Loaded:
    """What became of an image. done: "loaded", "named" (it was there without this name) or "there"."""

    reference: str
    done: str


class Bundle:
    """A bundle's folder, with those of the bundles on which it is based, or on which those are.

    lacking: the bundles of that chain whose folders were not given. Raises KitError: INPUT for a base that is no bundle;
    ENVIRONMENT for one that does not belong to the chain.
    """

    def __init__(self, folder: Path, manifest: Manifest, bases: Sequence[Path] = ()) -> None:
        self.folder, self.manifest = folder, manifest
        read = {base: manifests.read(base) for base in bases}
        given = {hash_of(base / manifests.NAME): base for base in read}
        chain = list(manifest.bases)
        for base in chain:  # it grows by the bases of those that were given
            if base.manifest in given:
                chain += read[given[base.manifest]].bases
        for stranger in given.keys() - {base.manifest for base in chain}:
            raise KitError(
                f"{given[stranger]} is not a bundle on which {folder} is based",
                f"--base FOLDER names {_told_of(chain)}" if chain else "leave --base out: this one has all of its layers",
                ExitCode.ENVIRONMENT,
            )
        self.lacking = [base for base in chain if base.manifest not in given]
        self._all = [(folder, manifest), *read.items()]

    def layer(self, digest: str) -> Place | None:
        """Where a layer lies; None where no folder has it."""
        for folder, manifest in self._all:
            if frame := manifest.frame(LAYER, digest):
                return folder, manifest, frame
        return None

    def config(self, image: Image) -> bytes:
        frame = self.manifest.frame(CONFIG, image.config)
        assert frame  # manifest.read saw to it
        content = b"".join(_member((self.folder, self.manifest, frame))[1])
        if archive.digest(content) != image.config:
            raise broken(self.folder, f"the configuration of {image.reference} was changed")
        return content

    def models(self) -> Iterator[bytes] | None:
        """The tar archive of model folders, checked on its way; None where the bundle has none."""
        frame = next((frame for frame in self.manifest.frames if frame.kind == FOLDERS), None)
        return _unpacked((self.folder, self.manifest, frame)) if frame else None


def load(bundle: Bundle, told: Engine, progress: Progress, say: Callable[[str], None], *, replace: bool) -> list[Loaded]:
    """Load what is not there yet. told: the engine. replace: take over a name that is there for another image.

    No name of the bundle points at an image before all of them are loaded and compared. Raises KitError: INPUT for a damaged
    bundle; ENVIRONMENT for another platform, too small a disk, a missing base, or the engine's own failure; FAILED for a
    name that is there for another image.
    """
    return _Load(bundle, told, progress, say).run(replace)


class _Load:
    def __init__(self, bundle: Bundle, told: Engine, progress: Progress, say: Callable[[str], None]) -> None:
        self.bundle, self.told, self.progress, self.say = bundle, told, progress, say
        self.present: list[engine.Local] = []
        self.lock = threading.Lock()  # of the progress
        self.configs = {image.config: bundle.config(image) for image in bundle.manifest.images}

    def run(self, replace: bool) -> list[Loaded]:
        images = self.bundle.manifest.images
        self._check_platform()
        done: dict[str, str] = {}
        for image in images:
            there = engine.find(image.reference)
            if there and self._is(there, image):
                done[image.reference] = "there"
            elif there and not replace:
                raise KitError(
                    f"{image.reference} is here already, as another image ({there.id[:19]}; the bundle's is {image.config[:19]})",
                    "--replace gives the name to the bundle's image; the other one stays, without a name",
                    ExitCode.FAILED,
                )
        missing = [image for image in images if image.reference not in done]
        self.present = engine.everything() if missing else []
        for image in missing:
            if same := next((local for local in self.present if self._is(local, image)), None):
                engine.tag(same.id, _temporary(image))
                done[image.reference] = "named"
        to_load = [image for image in missing if image.reference not in done]
        if to_load:
            self._load_all(to_load)
        done |= {image.reference: "loaded" for image in to_load}
        for image in missing:
            engine.tag(_temporary(image), image.reference)
        for name in engine.names(LOADING):
            engine.untag(name)
        return [Loaded(image.reference, done[image.reference]) for image in images]

    def _is(self, local: engine.Local, image: Image) -> bool:
        if self.told.containerd:
            config: dict[str, Any] = json.loads(self.configs[image.config]).get("config") or {}
            return local.runs_as(image.layers, config)
        return local.id == image.config

    def _load_all(self, images: Sequence[Image]) -> None:
        """Side by side where there is room: for one archive an engine unpacks layer after layer, on one core.

        What the images share comes first, as an image of its own, so that no layer is unpacked twice. containerd's store is
        given image after image: it wants all layers of each, and locks those that another load is writing.
        """
        shared = () if self.told.containerd or len(images) == 1 else _common_of([image.layers for image in images])
        first = [self._image_of(shared, images[0])] if len(shared) > self._known(shared) else []
        sent = {image.config: self._sent(image, 0) for image in first}
        sent |= {image.config: self._sent(image, len(shared)) for image in images}
        at_once = self._has_room(sent.values()) and not self.told.containerd
        self.progress.start("images", sum(frame.raw for places in sent.values() for _, _, frame in places))
        for group in [first, images] if at_once else [[image] for image in (*first, *images)]:
            self._load_together(group, sent)

    def _load_together(self, images: Sequence[Image], sent: dict[str, Sequence[Place]]) -> None:
        """Each in a thread of its own. What one raises ends the others."""
        together = engine.Together()
        with ThreadPoolExecutor(max(len(images), 1)) as threads:
            try:
                for loaded in as_completed([threads.submit(self._load, image, sent[image.config], together) for image in images]):
                    loaded.result()
            except BaseException:
                together.end()
                raise

    def _image_of(self, layers: tuple[str, ...], like: Image) -> Image:
        """An image that has the lowest layers of another."""
        told = json.loads(self.configs[like.config])
        config = {key: told[key] for key in ("architecture", "os", "variant") if key in told}
        content = json.dumps(config | {"rootfs": {"type": "layers", "diff_ids": list(layers)}}).encode()
        image = Image("", SHARED, archive.digest(content), layers, (), 0, "")
        self.configs[image.config] = content
        return image

    def _sent(self, image: Image, known: int) -> list[Place]:
        """The layers to send of an image, lowest first, each once. known: how many of the lowest the engine will have."""
        wanted = dict.fromkeys(image.layers[max(known, self._known(image.layers)) :])
        found = [self.bundle.layer(layer) for layer in wanted]
        if not all(found):
            # containerd's store gives no layer of an image to another one's archive: they must come from a folder.
            raise KitError(
                f"{self.bundle.folder} lacks layers that are in an earlier bundle"
                f"{'' if self.told.containerd else ', and they are not here'}: {_told_of(self.bundle.lacking)}",
                f"{'' if self.told.containerd else 'load that one first, or '}name its folder: --base FOLDER",
                ExitCode.ENVIRONMENT,
            )
        return [place for place in found if place]

    def _load(self, image: Image, places: Sequence[Place], together: engine.Together) -> None:
        engine.load(self._archive(image, places), together)
        loaded = engine.find(_temporary(image))
        if not loaded or not self._is(loaded, image):
            with contextlib.suppress(KitError):
                engine.untag(_temporary(image))
            raise KitError(
                f"the engine made another image of {image.reference} than the bundle holds",
                "its store may be damaged: docker system prune, then run it again",
                ExitCode.ENVIRONMENT,
            )
        if image.reference != SHARED:
            self.say(f"loaded: {image.reference}")

    def _archive(self, image: Image, places: Sequence[Place]) -> Iterator[bytes]:
        for place in places:
            size, content = _member(place)
            yield archive.header(archive.layer_path(place[2].name), size)
            for piece in content:
                with self.lock:
                    self.progress.advance(len(piece))
                yield piece
            yield archive.padding(size)
        path = archive.config_path(image.config)
        yield archive.document(path, self.configs[image.config])
        # Every byte is known to be right only now; without what follows the engine keeps nothing.
        yield archive.index([(_temporary(image), path, [archive.layer_path(layer) for layer in image.layers])])

    def _known(self, layers: Sequence[str]) -> int:
        """How many of an image's lowest layers the engine has in this very order: those it does not look for in an archive.

        containerd's store also keeps the packed layers of the archive, and wants all of them.
        """
        if self.told.containerd:
            return 0
        return max((len(_common_of([layers, local.layers])) for local in self.present), default=0)

    def _check_platform(self) -> None:
        theirs = self.bundle.manifest.platform
        system, _, rest = theirs.partition("/")
        arch = rest.partition("/")[0]
        same = MACHINES.get(arch, arch) == MACHINES.get(self.told.arch, self.told.arch)
        if self.told.arch and not (system == "linux" and same):
            raise KitError(
                f"the images are for {theirs}, this engine runs linux/{self.told.arch}",
                "export on a machine of this kind",
                ExitCode.ENVIRONMENT,
            )

    def _has_room(self, sent: Collection[Sequence[Place]]) -> bool:
        """Is there room to load these archives at once? Raises KitError when there is none to load one after another.

        `docker load` lays an archive out in the engine's folder before it unpacks it there, and then takes that away (measured:
        twice its size in all). containerd's store keeps both, each layer once.
        """
        place = space(Path(self.told.root)) if self.told.here else None
        if not place:
            return True
        sizes = [sum(frame.raw for _, _, frame in places) for places in sent]
        layers = {frame.name: frame.raw for places in sent for _, _, frame in places}
        needed = 2 * sum(layers.values()) if self.told.containerd else sum(sizes) + max(sizes)
        if place.free < needed:
            raise KitError(
                f"{place.folder} has {console.size(place.free)} free; loading needs up to {console.size(needed)} there",
                'docker system df shows what takes the room; "data-root" in /etc/docker/daemon.json moves it to a larger disk',
                ExitCode.ENVIRONMENT,
            )
        return place.free >= 2 * sum(sizes)


def _told_of(bases: Sequence[Base]) -> str:
    """Bundles in words: when they were written, and what they carry."""
    return "the one of " + " or ".join(f"{base.created} ({', '.join(base.images)})" for base in bases)


def _common_of(layers: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The lowest layers that all have in common."""
    return tuple(same[0] for same in takewhile(lambda same: len(set(same)) == 1, zip(*layers, strict=False)))


def _temporary(image: Image) -> str:
    return f"{LOADING}:{image.config.partition(':')[2][:12]}"


def _member(place: Place) -> tuple[int, Iterator[bytes]]:
    """(size, bytes) of the file in a frame, without the tar header before and the padding after it.

    After the last of the bytes comes KitError (INPUT) when they are not what they were.
    """
    folder, _, frame = place
    pieces = _unpacked(place)
    head = b""
    while len(head) < tarfile.BLOCKSIZE and (piece := next(pieces, b"")):
        head += piece
    try:
        size = tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "strict").size
    except tarfile.TarError as error:
        raise broken(folder, f"a member of {frame.stream}: {error}") from error

    def content() -> Iterator[bytes]:
        left, piece = size, head[tarfile.BLOCKSIZE :]
        while piece is not None:
            if left and piece:
                yield piece[:left]
                left -= min(left, len(piece))
            piece = next(pieces, None)  # to the very end, where the hash is compared
        if left:
            raise broken(folder, f"a member of {frame.stream} is cut")

    return size, content()


def _unpacked(place: Place) -> Iterator[bytes]:
    """The unpacked bytes of a frame, at most CHUNK at a time, however well they were packed. Raises KitError (INPUT)."""
    folder, manifest, frame = place
    parts = manifest.parts(frame.stream)
    source = packed(folder, parts, frame)
    raw = 0
    try:
        with zstandard.ZstdDecompressor().stream_reader(_Pieces(source), read_size=CHUNK) as reader:
            while data := reader.read(CHUNK):
                raw += len(data)
                if raw > frame.raw:
                    break
                yield data
    except zstandard.ZstdError as error:
        raise broken(folder, f"{culprit(folder, parts, frame)} was changed or damaged") from error
    for _ in source:  # what the frame's end leaves unread is still hashed
        pass
    if raw != frame.raw:
        raise broken(folder, f"a member of {frame.stream} has another size than it had")


class _Pieces:
    """An iterator of pieces of at most CHUNK bytes, as something to read."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def read(self, size: int) -> bytes:
        return next(self._pieces, b"")
