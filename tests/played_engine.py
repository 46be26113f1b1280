"""Two images that share a layer and the archives that `docker save` writes of them, so that ./kit export needs no engine."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from kit.bundle import export
from kit.bundle.engine import Local
from kit.bundle.manifest import Manifest

MIB = 2**20
REFERENCES = {"paddleocr-vl-api": "kit.test/api:1", "paddleocr-vlm-server": "kit.test/vlm:1"}


class Silent:
    """Progress that nobody sees."""

    def start(self, what: str, total: int) -> None: ...

    def advance(self, size: int) -> None: ...


class PlayedEngine:
    """release: changes the layers that are not shared. saved_as: the name in the archive, where it differs from the reference.

    old: archives as engines before 25 write them.
    """

    def __init__(
        self,
        release: int = 7,
        references: Mapping[str, str] = REFERENCES,
        saved_as: Mapping[str, str] | None = None,
        old: bool = False,
    ) -> None:
        self.references, self.saved_as, self.old = references, saved_as or {}, old
        chance, own = random.Random(7), random.Random(release)
        self.layers = [chance.randbytes(3 * MIB // 2), own.randbytes(MIB // 2), own.randbytes(MIB)]
        digests = [digest(layer) for layer in self.layers]
        self.images: dict[str, tuple[bytes, list[str]]] = {}
        for number, reference in enumerate(references.values(), 1):
            config = json.dumps({"architecture": "amd64", "rootfs": {"diff_ids": [digests[0], digests[number]]}}).encode()
            self.images[reference] = (config, [digests[0], digests[number]])
        self.saves = 0

    def find(self, reference: str) -> Local:
        config, layers = self.images[reference]
        given_out = f"{reference.partition(':')[0]}@{digest(b'x')}"
        return Local(digest(config), "linux/amd64", 2 * MIB, tuple(layers), (given_out,), {})

    @contextlib.contextmanager
    def saving(self, references: list[str]) -> Iterator[io.BytesIO]:
        self.saves += 1
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            index = self._old(archive) if self.old else self._new(archive)
            _add(archive, "manifest.json", json.dumps(index).encode())
        content.seek(0)
        yield content

    def _new(self, archive: tarfile.TarFile) -> list[dict[str, Any]]:
        for blob in (*self.layers, *(config for config, _ in self.images.values())):
            _add(archive, _blob(digest(blob)), blob)
        return [
            self._entry(reference, _blob(digest(config)), [_blob(layer) for layer in layers])
            for reference, (config, layers) in self.images.items()
        ]

    def _old(self, archive: tarfile.TarFile) -> list[dict[str, Any]]:
        by_digest = {digest(layer): layer for layer in self.layers}
        written: dict[str, str] = {}
        index = []
        for image, (reference, (config, layers)) in enumerate(self.images.items()):
            paths = [f"{image}{number}/layer.tar" for number in range(len(layers))]
            for path, layer in zip(paths, layers, strict=True):
                if layer in written:
                    _link(archive, path, f"../{written[layer]}")
                else:
                    _add(archive, path, by_digest[layer])
                    written[layer] = path
            _add(archive, f"{image}.json", config)
            index.append(self._entry(reference, f"{image}.json", paths))
        return index

    def _entry(self, reference: str, config: str, layers: list[str]) -> dict[str, Any]:
        return {"Config": config, "RepoTags": [self.saved_as.get(reference, reference)], "Layers": layers}

    def export(self, folder: Path, part_size: int = MIB, **more: Any) -> tuple[Manifest, list[str]]:
        """What ./kit export makes of these images, and what it says. more: of export.Wanted, and `progress`."""
        said: list[str] = []
        progress = more.pop("progress", Silent())
        fields = {
            "settings": {"API_IMAGE_TAG_SUFFIX": "1"}, "requires": None, "models_inside": {},
            "compose_files": ("compose.yaml", "compose.offline.yaml"), "volume": "paddleocr-vl_models",
        }  # fmt: skip
        wanted = export.Wanted("gpu", "test", tuple(self.references.items()), part_size=part_size, **fields | more)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export.engine, "find", self.find)
            patch.setattr(export.engine, "shared_size", lambda references: MIB * 3 // 2)
            patch.setattr(export.engine, "saving", self.saving)
            patch.setattr(export.docker, "engine", lambda: None)
            return export.export(folder, wanted, progress, said.append), said


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _link(archive: tarfile.TarFile, name: str, target: str) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    archive.addfile(member)
