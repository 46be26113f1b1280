"""./kit export: the images of a stack, the kit and what else a host without network needs, into a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Protocol

import zstandard

from kit.bundle import archive, engine, readme, room
from kit.bundle import manifest as manifests
from kit.bundle.manifest import (
    CONFIG,
    FOLDERS,
    IMAGES,
    INDEX,
    LAYER,
    MODELS,
    Base,
    File,
    Folder,
    Frame,
    Image,
    Manifest,
    Requires,
)
from kit.bundle.parts import CHUNK, Changed, PartWriter, hash_of, write_error
from kit.bundle.progress import Progress
from kit.doctor.check import numbers
from kit.errors import ExitCode, KitError
from kit.facts import docker

JOURNAL = ".export.json"
LEAST_PART = 2**20  # bytes
BESIDE = 2**18  # bytes: what a part leaves of its size for the journal beside it, so that both take no more while it is written
LEVEL = 2  # of zstd: still smaller than gzip's 6 (docs/offline.md), in a fraction of its time
# A layer is packed by all cores at once. More of them would only wait for `docker save`, and each holds 7 MB.
MOST_THREADS = 8
JOB = 2 * 2**20  # bytes, of which a core takes one at a time
MOST_PARTS = 1000  # of a stream: a shell sorts .1000 between .100 and .101


class Source(Protocol):
    """Model folders, checked to be whole: kit.bundle.models. folders: name and bytes of each."""

    @property
    def folders(self) -> Sequence[tuple[str, int]]: ...

    def chunks(self) -> Iterator[bytes]:
        """One uncompressed tar archive: `.paddlex/official_models/NAME/…` and `.paddlex/fonts/…`, owned by 1000:1000, sorted;
        the same folders give the same bytes. Raises KitError when it cannot be read to its end."""
        ...


@dataclass(frozen=True)
class Wanted:
    """What to carry.

    images: service and reference, in the order of their start. models_inside: by reference, the model inside an image.
    part_size: bytes, at most. compose_files: those to start it with on the other host. volume: of the models there.
    bases: folders of bundles whose layers need not be carried again. write_kit: writes kit.tar.gz to a path, for machines of an
    architecture as Docker names it; None leaves the kit out. kit_state: tells one kit.tar.gz from another.
    """

    kind: str
    kit: str
    images: tuple[tuple[str, str], ...]
    settings: dict[str, str]
    requires: Requires | None
    models_inside: dict[str, str]
    part_size: int
    compose_files: tuple[str, ...]
    volume: str
    bases: tuple[Path, ...] = ()
    models: Source | None = None
    write_kit: Callable[[Path, str], None] | None = None
    kit_state: str = ""


def look(folder: Path, bases: Sequence[Path]) -> None:
    """Raise KitError (INPUT) unless `folder` is fit to be written to and every base is a bundle; changes nothing."""
    for base in bases:
        manifests.read(base)
    try:
        there = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")) if folder.exists() else []
    except OSError as error:
        raise write_error(folder, error) from error
    if not there or _journal(folder):
        return
    if manifests.NAME in there:
        raise KitError(f"{folder} holds a finished bundle", "take an empty folder, or remove this one", ExitCode.INPUT)
    raise KitError(f"{folder} is not empty: {there[0]}", "take an empty folder", ExitCode.INPUT)


def export(folder: Path, wanted: Wanted, progress: Progress, say: Callable[[str], None]) -> Manifest:
    """Write the bundle, or go on with it; returns its manifest. The images are in the engine.

    Raises KitError: INPUT for a folder that holds something else; USAGE for too small parts; ENVIRONMENT for too small a disk,
    one that cannot be written to, or the engine's failure.
    """
    look(folder, wanted.bases)
    try:
        work = _Export(folder, wanted, progress, say)
        work.begin()
        try:
            return work.write()
        except Changed:
            say("what the interrupted export wrote is not what comes now: starting again")
            work.forget()
            return work.write()
    except OSError as error:
        raise write_error(folder, error) from error


class _Export:
    def __init__(self, folder: Path, wanted: Wanted, progress: Progress, say: Callable[[str], None]) -> None:
        self.folder, self.wanted, self.progress, self.say = folder, wanted, progress, say
        self.images = {reference: _present(reference) for _, reference in wanted.images}
        platforms = {image.platform for image in self.images.values()}
        if len(platforms) > 1:
            raise KitError(
                f"the images are of different platforms: {', '.join(sorted(platforms))}", "pull one", ExitCode.ENVIRONMENT
            )
        (self.platform,) = platforms
        self.bases = [_base(path) for path in wanted.bases]
        self.left_out = {layer for _, base in self.bases for image in base.images for layer in image.layers}
        self.raw = sum(image.size for image in self.images.values()) - engine.shared_size(list(self.images))
        self.models = sum(size for _, size in wanted.models.folders) if wanted.models else 0
        self.files: list[File] = []  # complete and in place
        self.frames: list[Frame] = []
        self.kept_files: list[File] = []
        self.kept_frames: list[Frame] = []

    # --- what is there

    @property
    def _key(self) -> dict[str, object]:
        """What must be the same for an interrupted export to be continued: what the parts are made of."""
        wanted = self.wanted
        return {
            "format": manifests.FORMAT,
            "kind": wanted.kind,
            "images": {reference: image.id for reference, image in self.images.items()},
            "part_size": wanted.part_size,
            "bases": [base.manifest for base, _ in self.bases],
            "models": [list(entry) for entry in wanted.models.folders] if wanted.models else None,
            "with_kit": wanted.write_kit is not None,
            "zstd": [zstandard.__version__, LEVEL, JOB],
        }

    def begin(self) -> None:
        """Look at what an earlier run has left, and at the disk. Raises KitError."""
        self._check_parts()
        self.folder.mkdir(parents=True, exist_ok=True)
        if journal := _journal(self.folder):
            for path in self.folder.glob(".*.partial"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if journal.get("key") == self._key:
            self._keep(journal)
        elif journal:
            self.say("an export of something else was interrupted here: starting again")
            self.forget()
        room.check(
            self.folder,
            docker.engine(),
            saved=self.raw,
            packed=self._carried(),
            models=self.models,
            kit=bool(self.wanted.write_kit) and not self._kept_kit,
            kept=sum(file.size for file in self.kept_files if file.name != manifests.KIT),
        )

    def _check_parts(self) -> None:
        most, size = max(self._carried(), self.models), self.wanted.part_size - BESIDE
        if most > MOST_PARTS * size:
            raise KitError(
                f"more than {MOST_PARTS} parts may come of it, which a shell would join in another order",
                f"--part-size {(most // MOST_PARTS + BESIDE) // 2**20 + 1}MiB is enough",
                ExitCode.USAGE,
            )

    def _carried(self) -> int:
        """Bytes of the images that no base has; 0 where that is not known, as of a base that is based on another itself."""
        left_out = self.left_out & {layer for image in self.images.values() for layer in image.layers}
        sizes = {frame.name: frame.raw for _, base in self.bases for frame in base.frames if frame.kind == LAYER}
        return max(self.raw - sum(sizes[layer] for layer in left_out), 0) if left_out <= sizes.keys() else 0

    def _keep(self, journal: dict) -> None:
        """Take over the parts that are whole, up to the first that is not, and the frames that lie in them."""
        files = [File(**entry) for entry in journal["files"]]
        self.progress.start("checking what is there", sum(file.size for file in files))
        same_kit = journal.get("kit_state") == self.wanted.kit_state
        for group in (*[manifests.KIT] * same_kit, IMAGES, MODELS):
            for file in (file for file in files if file.name.startswith(group)):
                path = self.folder / file.name
                if not path.is_file() or path.stat().st_size != file.size or hash_of(path, self.progress.advance) != file.sha256:
                    break
                self.kept_files.append(file)
        end = {stream: sum(f.size for f in self.kept_files if manifests.is_part(f.name, stream)) for stream in (IMAGES, MODELS)}
        frames = sorted((Frame(**entry) for entry in journal["frames"]), key=lambda frame: frame.offset)
        self.kept_frames = [frame for frame in frames if frame.offset + frame.size <= end[frame.stream]]
        if self.kept_files:
            self.say(f"continuing: {len(self.kept_files)} of its files are complete")

    def forget(self) -> None:
        """Remove what an earlier run wrote, and what this one kept of it."""
        for path in self.folder.iterdir():
            ours = path.name in (manifests.NAME, manifests.SUMS, manifests.README, manifests.KIT)
            if ours or manifests.is_part(path.name, IMAGES) or manifests.is_part(path.name, MODELS):
                path.unlink()
        self.kept_files, self.kept_frames, self.files, self.frames = [], [], [], []

    @property
    def _kept_kit(self) -> File | None:
        return next((file for file in self.kept_files if file.name == manifests.KIT), None)

    # --- writing

    def write(self) -> Manifest:
        self._note_progress()
        if self.wanted.write_kit:
            self._kit()
        if self.wanted.models:
            self._models(self.wanted.models)
        images = self._images()
        manifest = Manifest(
            manifests.FORMAT,
            self.wanted.kit,
            datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            self.wanted.kind,
            self.platform,
            self.wanted.settings,
            self.wanted.requires,
            images,
            tuple(base for base, _ in self.bases),
            tuple(Folder(name, size) for name, size in self.wanted.models.folders) if self.wanted.models else (),
            tuple(self.frames),
            tuple(self.files),
        )
        text = readme.text(manifest, self.wanted.compose_files, self.wanted.volume)
        self._place(manifests.README, text)
        manifest = replace(manifest, files=(*self.files, self._as_file(manifests.README)))
        self._place(manifests.SUMS, manifests.sums(manifest.files, manifests.dumps(manifest)))
        self._place(manifests.NAME, manifests.dumps(manifest))
        (self.folder / JOURNAL).unlink()
        return manifest

    def _kit(self) -> None:
        assert self.wanted.write_kit
        kept = self._kept_kit
        if not kept:
            self.wanted.write_kit(self.folder / manifests.KIT, self.platform.split("/")[1])
        self._finished(kept or self._as_file(manifests.KIT))

    def _models(self, source: Source) -> None:
        self.progress.start("models", self.models)
        with self._writer(MODELS) as writer:
            kept = self._kept_frame(MODELS, 0)
            if kept:
                writer.skip(kept.size)
                self.frames.append(kept)
            else:
                self._frame(writer, FOLDERS, "", self._counted(source.chunks()))
            writer.close()

    def _images(self) -> tuple[Image, ...]:
        saved = archive.Saved()
        known: dict[str, str] = {}
        if self.left_out:  # which layers to leave out shows in their names, or else at the end of the archive
            known = self._digests_of_paths()
        self.progress.start("images", self.raw)
        with self._writer(IMAGES) as writer, engine.saving(list(self.images)) as stream:
            number = 0
            for layer in archive.layers(stream, saved):
                if known.get(layer.path) in self.left_out:
                    saved.layers[layer.path] = known[layer.path]
                    continue
                self._layer(writer, layer, saved, number)
                number += 1
            images = self._described(saved)
            for entry in images:
                path = archive.config_path(entry.config)
                self._frame(writer, CONFIG, path, [archive.document(path, _config_of(saved, entry))], entry.config)
            paths = {frame.name: frame.path for frame in self.frames}
            listed = [
                (entry.reference, paths[entry.config], [paths.get(layer, archive.layer_path(layer)) for layer in entry.layers])
                for entry in images
            ]
            self._frame(writer, INDEX, "manifest.json", [archive.index(listed)])
            writer.close()
        return images

    def _digests_of_paths(self) -> dict[str, str]:
        """By path in the archive, which layer it is.

        Engines before 25, and containerd's store, tell it at the archive's end alone: there it costs one more `docker save`.
        """
        told = docker.engine()
        if told and numbers(told.version) >= (25,) and not told.containerd:
            return {f"blobs/{layer.replace(':', '/')}": layer for image in self.images.values() for layer in image.layers}
        saved, paths = archive.Saved(), {}
        self.progress.start("looking for what the base has", self.raw)
        with engine.saving(list(self.images)) as stream:
            for layer in archive.layers(stream, saved):
                while piece := layer.content.read(CHUNK):
                    self.progress.advance(len(piece))
            named = {docker.familiar(reference): image for reference, image in self.images.items()}
            for entry in saved.entries():
                for layers in (named[name].layers for name in entry.get("RepoTags") or () if name in named):
                    paths |= {saved.links.get(path, path): layer for path, layer in zip(entry["Layers"], layers, strict=True)}
        return paths

    def _layer(self, writer: PartWriter, layer: archive.Layer, saved: archive.Saved, number: int) -> None:
        def read() -> Iterator[bytes]:
            while piece := layer.content.read(CHUNK):
                layer.digester.update(piece)
                self.progress.advance(len(piece))
                yield piece

        kept = self._kept_frame(IMAGES, number)
        if kept:
            for _ in read():
                pass
            if layer.digester.digest != kept.name:
                raise Changed
            writer.skip(kept.size)
            self.frames.append(kept)
        else:
            # A member's name stands before its content, whose digest is not known yet: so it is a number.
            path = f"{number}.tar"
            member = chain([archive.header(path, layer.size)], read(), [archive.padding(layer.size)])
            frame = self._frame(writer, LAYER, path, member)
            self.frames[-1] = replace(frame, name=layer.digester.digest)
        saved.layers[layer.path] = self.frames[-1].name

    def _described(self, saved: archive.Saved) -> tuple[Image, ...]:
        """Each image as the archive has it. Raises KitError when that is not what the engine tells of it."""
        services = {reference: service for service, reference in self.wanted.images}
        entries = {name: entry for entry in saved.entries() for name in entry.get("RepoTags") or ()}
        found = []
        for reference, local in self.images.items():
            entry = entries.get(docker.familiar(reference))
            layers = saved.layers_of(entry) if entry else ()
            if not entry or layers != local.layers:
                raise KitError(
                    f"docker save gave another {reference} than the engine has",
                    f"the engine's store may be damaged: docker pull {reference}",
                    ExitCode.ENVIRONMENT,
                )
            config = archive.digest(saved.documents[entry["Config"]])
            model = self.wanted.models_inside.get(reference, "")
            found.append(Image(services[reference], reference, config, layers, local.digests, local.size, model))
        return tuple(found)

    def _frame(self, writer: PartWriter, kind: str, path: str, pieces: Iterable[bytes], name: str = "") -> Frame:
        """Pack `pieces` as one frame."""
        threads = min(os.cpu_count() or 1, MOST_THREADS)
        options = zstandard.ZstdCompressionParameters.from_level(LEVEL, threads=threads, job_size=JOB, write_checksum=True)
        packing = zstandard.ZstdCompressor(compression_params=options).compressobj()
        start, raw, seen = writer.position, 0, hashlib.sha256()

        def put(data: bytes) -> None:
            seen.update(data)
            writer.write(data)

        for piece in pieces:
            raw += len(piece)
            put(packing.compress(piece))
        put(packing.flush())
        frame = Frame(writer.stream, kind, name, path, start, writer.position - start, raw, seen.hexdigest())
        self.frames.append(frame)
        return frame

    def _writer(self, stream: str) -> PartWriter:
        kept = [file for file in self.kept_files if manifests.is_part(file.name, stream)]
        self.files += kept
        return PartWriter(self.folder, stream, self.wanted.part_size - BESIDE, kept, self._finished)

    def _kept_frame(self, stream: str, number: int) -> Frame | None:
        frames = [frame for frame in self.kept_frames if frame.stream == stream and frame.kind in (LAYER, FOLDERS)]
        return frames[number] if number < len(frames) else None

    def _counted(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.progress.advance(len(piece))
            yield piece

    # --- files

    def _finished(self, file: File) -> None:
        self.files.append(file)
        self._note_progress()

    def _note_progress(self) -> None:
        files = self.files + [file for file in self.kept_files if file not in self.files]
        frames = self.frames + [frame for frame in self.kept_frames if frame not in self.frames]
        told = {"files": [asdict(file) for file in files], "frames": [asdict(frame) for frame in frames]}
        self._place(JOURNAL, json.dumps({"key": self._key, "kit_state": self.wanted.kit_state} | told))

    def _place(self, name: str, text: str) -> None:
        aside = self.folder / f".{name}.partial"
        try:
            with aside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.folder / name)
        except OSError:
            with contextlib.suppress(OSError):  # what is told is what came first
                aside.unlink(missing_ok=True)
            raise

    def _as_file(self, name: str) -> File:
        path = self.folder / name
        return File(name, path.stat().st_size, hash_of(path))


def _journal(folder: Path) -> dict:
    try:
        journal = json.loads((folder / JOURNAL).read_text())
    except (OSError, ValueError):
        return {}
    return journal if isinstance(journal, dict) else {}


def _present(reference: str) -> engine.Local:
    image = engine.find(reference)
    if not image:
        raise KitError(f"there is no image {reference}", f"docker pull {reference}", ExitCode.ENVIRONMENT)
    return image


def _base(folder: Path) -> tuple[Base, Manifest]:
    manifest = manifests.read(folder)
    digest = hash_of(folder / manifests.NAME)
    return Base(digest, manifest.created, tuple(image.reference for image in manifest.images)), manifest


def _config_of(saved: archive.Saved, image: Image) -> bytes:
    return next(text for text in saved.documents.values() if archive.digest(text) == image.config)
