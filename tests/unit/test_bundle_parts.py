"""A stream cut into files, and read again without joining them."""

from __future__ import annotations

import errno
import hashlib
import random
from pathlib import Path

import pytest
from kit.bundle.manifest import IMAGES, File, Frame
from kit.bundle.parts import Changed, PartWriter, packed, ranged, write_error
from kit.errors import ExitCode, KitError

DATA = random.Random(5).randbytes(1000)


def written(folder: Path, data: bytes, size: int, kept: list[File] | None = None, step: int = 7) -> list[File]:
    files: list[File] = []
    with PartWriter(folder, IMAGES, size, kept or [], files.append) as writer:
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
        writer.close()
    return files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [1, 99, 100, 999, 1000, 1001])
def test_parts_are_full_but_the_last_and_together_the_stream(tmp_path: Path, size: int) -> None:
    files = written(tmp_path, DATA, size)
    assert [file.name for file in files] == [f"images.tar.zst.{n:03d}" for n in range(len(files))] == names(tmp_path)
    assert {file.size for file in files[:-1]} <= {size} and 0 < files[-1].size <= size
    pieces = [(tmp_path / file.name).read_bytes() for file in files]
    assert b"".join(pieces) == DATA
    assert [hashlib.sha256(piece).hexdigest() for piece in pieces] == [file.sha256 for file in files]


@pytest.mark.parametrize(("offset", "size"), [(0, 1000), (0, 100), (99, 2), (100, 100), (250, 700), (999, 1), (1000, 0)])
def test_any_range_can_be_read(tmp_path: Path, offset: int, size: int) -> None:
    files = written(tmp_path, DATA, 100)
    assert b"".join(ranged(tmp_path, files, offset, size)) == DATA[offset : offset + size]


def test_what_is_not_finished_leaves_nothing_in_place(tmp_path: Path) -> None:
    files: list[File] = []
    with pytest.raises(KeyboardInterrupt), PartWriter(tmp_path, IMAGES, 300, [], files.append) as writer:
        writer.write(DATA[:700])
        assert names(tmp_path)[0].startswith("."), "a part under way has no good name"
        raise KeyboardInterrupt
    assert names(tmp_path) == ["images.tar.zst.000", "images.tar.zst.001"] == [file.name for file in files]


def test_kept_parts_are_compared_and_not_written(tmp_path: Path) -> None:
    before = written(tmp_path, DATA, 300)[:2]
    inodes = [(tmp_path / file.name).stat().st_ino for file in before]
    after = written(tmp_path, DATA, 300, kept=before)
    assert [file.name for file in after] == ["images.tar.zst.002", "images.tar.zst.003"]
    assert [(tmp_path / file.name).stat().st_ino for file in before] == inodes
    assert b"".join((tmp_path / name).read_bytes() for name in names(tmp_path)) == DATA


@pytest.mark.parametrize("at", [0, 299, 300, 599])
def test_a_stream_that_differs_from_kept_parts_is_noticed(tmp_path: Path, at: int) -> None:
    before = written(tmp_path, DATA, 300)[:2]
    other = bytearray(DATA)
    other[at] ^= 1
    with pytest.raises(Changed):
        written(tmp_path, bytes(other), 300, kept=before)


def test_a_stream_that_ends_within_kept_parts_is_noticed(tmp_path: Path) -> None:
    before = written(tmp_path, DATA, 300)[:2]
    with pytest.raises(Changed):
        written(tmp_path, DATA[:500], 300, kept=before)


def test_a_range_may_be_skipped_only_within_kept_parts(tmp_path: Path) -> None:
    before = written(tmp_path, DATA, 300)[:2]
    with PartWriter(tmp_path, IMAGES, 300, before, lambda file: None) as writer:
        writer.skip(450)
        with pytest.raises(Changed):
            writer.skip(151)
        writer.write(DATA[450:])
        writer.close()
    assert b"".join((tmp_path / name).read_bytes() for name in names(tmp_path)) == DATA


def test_a_damaged_frame_is_told_after_its_last_byte_and_its_part_named(tmp_path: Path) -> None:
    files = written(tmp_path, DATA, 300)
    frame = Frame(IMAGES, "layer", "", "", 200, 700, 0, hashlib.sha256(DATA[200:900]).hexdigest())
    assert b"".join(packed(tmp_path, files, frame)) == DATA[200:900]
    part = tmp_path / files[2].name
    part.write_bytes(part.read_bytes()[:10] + b"x" + part.read_bytes()[11:])
    with pytest.raises(KitError) as failure:
        list(packed(tmp_path, files, frame))
    assert files[2].name in failure.value.message and files[1].name not in failure.value.message
    assert failure.value.code == ExitCode.INPUT


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_part_that_is_not_whole_is_named(tmp_path: Path, damage: str) -> None:
    files = written(tmp_path, DATA, 300)
    part = tmp_path / files[1].name
    part.unlink() if damage == "missing" else part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(KitError) as failure:
        list(ranged(tmp_path, files, 0, len(DATA)))
    assert files[1].name in failure.value.message and failure.value.hint


def test_a_full_disk_and_a_file_that_is_too_long_are_told_apart(tmp_path: Path) -> None:
    full, long, other = (write_error(tmp_path, OSError(number, "x")) for number in (errno.ENOSPC, errno.EFBIG, errno.EROFS))
    assert "is full" in full.message and "FAT32" in long.hint and "cannot write" in other.message
    assert {error.code for error in (full, long, other)} == {ExitCode.ENVIRONMENT}
