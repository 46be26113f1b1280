"""The archives of `docker save`, of both kinds of engines, and those that go into `docker load`."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable

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
