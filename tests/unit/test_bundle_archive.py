"""The archives of `docker save`, of both kinds of engines, and those that go into `docker load`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import zstandard
from kit.bundle import archive


def layer(text: str) -> bytes:
    """A layer with one file."""
    return members({"file": text.encode()})


def members(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            made.addfile(member)
    return out.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read(content: bytes) -> tuple[archive.Saved, dict[str, bytes]]:
    """What was saved, and each layer by its path."""
    saved, found = archive.Saved(), {}
    for one in archive.layers(io.BytesIO(content), saved):
        found[one.path] = b""
        while piece := one.content.read(700):
            found[one.path] += piece
            one.digester.update(piece)
        assert len(found[one.path]) == one.size
        saved.layers[one.path] = one.digester.digest
    return saved, found


BOTTOM, TOP = layer("bottom"), layer("top")
CONFIG = json.dumps({"config": {"Cmd": ["x"]}}).encode()


def test_an_old_engine_s_archive_with_a_layer_twice() -> None:
    index = [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["1/layer.tar", "2/layer.tar", "3/layer.tar"]}]
    content = members(
        {
            "1/VERSION": b"1.0", "1/json": b'{"id": "1"}', "1/layer.tar": BOTTOM, "3/layer.tar": TOP,
            "c.json": CONFIG, "manifest.json": json.dumps(index).encode(),
        },
        {"2/layer.tar": "../1/layer.tar"},
    )  # fmt: skip
    saved, found = read(content)
    assert found == {"1/layer.tar": BOTTOM, "3/layer.tar": TOP}
    (entry,) = saved.entries()
    assert saved.layers_of(entry) == (digest(BOTTOM), digest(BOTTOM), digest(TOP))
    assert saved.documents["c.json"] == CONFIG


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_new_engine_s_archive_also_with_packed_layers(pack: Callable[[bytes], bytes]) -> None:
    """containerd's store gives layers out as they were pulled; packed, an almost empty one is shorter than a block."""
    index = [{"Config": "blobs/sha256/cc", "RepoTags": ["a:1"], "Layers": ["blobs/sha256/aa"]}]
    saved, _ = read(
        members({"blobs/sha256/aa": pack(TOP), "blobs/sha256/cc": CONFIG, "manifest.json": json.dumps(index).encode()})
    )
    assert saved.layers_of(saved.entries()[0]) == (digest(TOP),)


@pytest.mark.parametrize("step", [1, 700, 2**18])
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_layer_of_several_members_is_known_by_all_that_they_hold(pack: Callable[[bytes], bytes], step: int) -> None:
    """eStargz gives each file a gzip member of its own."""
    packed = pack(BOTTOM[:5000]) + pack(b"") + pack(BOTTOM[5000:])
    seen = archive.Digester(packed[:512])
    for at in range(0, len(packed), step):
        seen.update(packed[at : at + step])
    assert seen.digest == digest(BOTTOM)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_what_a_layer_unpacks_to_is_never_in_memory_as_a_whole(
    pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, sizes = pack(bytes(40 * archive.CHUNK)), []
    monkeypatch.setattr(archive.hashlib, "sha256", lambda: SimpleNamespace(update=lambda piece: sizes.append(len(piece))))
    archive.Digester(packed[:512]).update(packed)
    assert sum(sizes) == 40 * archive.CHUNK and max(sizes) <= archive.CHUNK


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_a_packed_layer_that_is_damaged_is_an_error_of_the_archive(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(BOTTOM)
    with pytest.raises(ValueError, match="a layer is damaged"):
        read(members({"blobs/sha256/aa": packed[:60] + b"damage" * 9 + packed[60:]}))


def test_a_file_whose_name_looks_like_a_document_makes_no_document_of_a_layer() -> None:
    odd = members({"{odd}": b"x" * 3000})
    saved, found = read(members({"1/layer.tar": odd}))
    assert found == {"1/layer.tar": odd} and not saved.documents


def test_a_cut_archive_is_an_error() -> None:
    whole = members({"1/layer.tar": TOP})
    with pytest.raises((tarfile.TarError, ValueError)):
        read(whole[:3000])


def test_an_archive_without_an_index_is_an_error() -> None:
    saved, _ = read(members({"1/layer.tar": TOP}))
    with pytest.raises(ValueError, match=r"manifest\.json"):
        saved.entries()


def test_what_is_written_is_an_archive_of_these_members() -> None:
    made = (
        archive.header("0.tar", len(TOP)) + TOP + archive.padding(len(TOP))
        + archive.document("c.json", CONFIG)
        + archive.index([("a:1", "c.json", ["0.tar"])])
    )  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(made)) as opened:
        assert opened.getnames() == ["0.tar", "c.json", "manifest.json"]
        assert opened.extractfile("0.tar").read() == TOP
        index = json.load(opened.extractfile("manifest.json"))
    assert index == [{"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["0.tar"]}]
    saved, found = read(made)
    assert found == {"0.tar": TOP} and saved.documents["c.json"] == CONFIG
