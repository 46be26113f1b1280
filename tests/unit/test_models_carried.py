"""Model folders as an archive: what is taken, what is refused, and that they appear whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import struct
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.bundle import model_folders
from kit.bundle.model_folders import MODELS, WHOLE, Refused, fill, find, pack
from support import small_disk

PROGRAM = Path(model_folders.__file__)


def safetensors(tensor: bytes) -> bytes:
    header = json.dumps({"t": {"dtype": "U8", "shape": [len(tensor)], "data_offsets": [0, len(tensor)]}}).encode()
    return struct.pack("<Q", len(header)) + header + tensor


@pytest.fixture
def paddlex(tmp_path: Path) -> Path:
    """A `.paddlex` as PaddleX leaves it: two models, a font, and what is nobody's business."""
    root = tmp_path / "source" / ".paddlex"
    layout, vlm = root / MODELS / "PP-DocLayoutV3", root / MODELS / "PaddleOCR-VL-1.6"
    for folder in (layout, vlm / "processor", vlm / ".cache" / "huggingface", root / "fonts", root / "temp", root / "locks"):
        folder.mkdir(parents=True)
    (layout / "inference.yml").write_text("Global: {}\n")
    (layout / "inference.pdiparams").write_bytes(bytes(range(256)) * 20)
    (vlm / "config.json").write_text("{}")
    (vlm / "model.safetensors").write_bytes(safetensors(b"weights" * 3000))
    (vlm / "processor" / "merges.txt").write_text("")
    (vlm / ".cache" / "huggingface" / "model.metadata").write_text("etag")
    (root / "fonts" / "PingFang-SC-Regular.ttf").write_bytes(b"font" * 100)
    (root / "temp" / "x").write_text("x")
    return root


def archive(folder: Path) -> bytes:
    return b"".join(pack(find(folder)))


def take_in(home: Path, data: bytes) -> None:
    fill(home, io.BytesIO(data + WHOLE))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def models_in(home: Path) -> dict[str, bytes]:
    root = home / ".paddlex"
    return {name: data for name, data in contents(root).items() if not name.startswith(".")} if root.exists() else {}


# --- out


def test_models_and_fonts_come_in_a_fixed_order_and_belong_to_the_images_user(paddlex: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(paddlex))) as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        ".paddlex",
        ".paddlex/fonts",
        ".paddlex/fonts/PingFang-SC-Regular.ttf",
        ".paddlex/official_models",
        ".paddlex/official_models/PP-DocLayoutV3",
        ".paddlex/official_models/PP-DocLayoutV3/inference.pdiparams",
        ".paddlex/official_models/PP-DocLayoutV3/inference.yml",
        ".paddlex/official_models/PaddleOCR-VL-1.6",
        ".paddlex/official_models/PaddleOCR-VL-1.6/config.json",
        ".paddlex/official_models/PaddleOCR-VL-1.6/model.safetensors",
        ".paddlex/official_models/PaddleOCR-VL-1.6/processor",
        ".paddlex/official_models/PaddleOCR-VL-1.6/processor/merges.txt",
    ]
    assert {(m.uid, m.gid, m.mtime, m.mode) for m in members} == {(1000, 1000, 0, 0o644), (1000, 1000, 0, 0o755)}
    assert all(member.isdir() == (member.mode == 0o755) for member in members)


def test_the_same_folders_give_the_same_bytes_wherever_they_lie(paddlex: Path, tmp_path: Path) -> None:
    first = archive(paddlex)
    for path in paddlex.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    moved = paddlex.rename(tmp_path / "elsewhere")
    assert archive(moved) == first
    only_models = b"".join(pack(find(moved / MODELS)))
    assert b"PingFang" not in only_models and b"PP-DocLayoutV3/inference.yml" in only_models


def test_sizes_are_those_of_the_files_that_are_carried(paddlex: Path) -> None:
    expected = {"PP-DocLayoutV3": 5120 + 11, "fonts": 400, "PaddleOCR-VL-1.6": 2 + len(safetensors(b"weights" * 3000))}
    assert dict(find(paddlex).folders) == expected


def test_a_link_to_a_file_beside_it_is_carried_as_that_file(paddlex: Path) -> None:
    model = paddlex / MODELS / "PP-DocLayoutV3"
    (model / "inference.pdiparams").rename(model / "blob")
    (model / "inference.pdiparams").symlink_to("blob")
    with tarfile.open(fileobj=io.BytesIO(archive(paddlex))) as tar:
        assert tar.getmember(f".paddlex/{MODELS}/PP-DocLayoutV3/inference.pdiparams").size == 5120


# --- what is refused


Change = Callable[[Path], object]
LAYOUT, VLM = f"{MODELS}/PP-DocLayoutV3", f"{MODELS}/PaddleOCR-VL-1.6"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def sharded(root: Path) -> None:
    (root / VLM / "model.safetensors").rename(root / VLM / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (root / VLM / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: (root / LAYOUT / "inference.yml").unlink(), "no config.json and no inference.yml"),
        (lambda root: (root / LAYOUT / "inference.pdiparams").unlink(), "PP-DocLayoutV3 has no weights"),
        (lambda root: (root / LAYOUT / "inference.pdiparams").write_bytes(b""), "pdiparams is half downloaded: 0 bytes"),
        (lambda root: cut(root / VLM / "model.safetensors"), "model.safetensors is half downloaded"),
        (lambda root: (root / VLM / "model.safetensors").write_bytes(b"<html>none"), "model.safetensors is half downloaded"),
        (lambda root: (root / VLM / ".cache" / "huggingface" / "a.incomplete").touch(), "half downloaded: .cache/huggingface/a"),
        (sharded, "no model-00002-of-00002.safetensors"),
        (lambda root: (root / LAYOUT / "x").symlink_to("/etc/hostname"), "is a link"),
        (lambda root: (root / LAYOUT / "x").symlink_to(root / "temp"), "is a link"),
        (lambda root: (root / MODELS / "PP-DocLayoutV2").symlink_to(root / LAYOUT), "is a link"),
        (lambda root: os.mkfifo(root / LAYOUT / "x"), "neither file nor folder"),
        (lambda root: (root / LAYOUT).rename(root / MODELS / "two words"), "no name of a model"),
    ],
)  # fmt: skip
def test_what_is_no_whole_model_is_named(change: Change, said: str, paddlex: Path) -> None:
    find(paddlex)
    change(paddlex)
    with pytest.raises(Refused) as caught:
        archive(paddlex)
    assert said in caught.value.message and caught.value.hint and "\n" not in caught.value.message


def test_a_socket_is_refused(paddlex: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(paddlex / LAYOUT)  # a socket's path may have 107 characters
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("x")
        with pytest.raises(Refused, match="neither file nor folder"):
            find(paddlex)


def test_other_folders_are_refused_with_what_to_give_instead(paddlex: Path, tmp_path: Path) -> None:
    for folder, said in (
        (tmp_path / "absent", "no such folder"),
        (PROGRAM, "no folder"),
        (paddlex / LAYOUT, "is a model folder itself"),
        (paddlex / "locks", "holds no model folder"),
        (paddlex.parent, "holds no model folder"),
    ):
        with pytest.raises(Refused, match=said) as caught:
            find(folder)
        assert caught.value.hint
    with pytest.raises(Refused) as caught:
        find(paddlex / LAYOUT)
    assert str(paddlex / MODELS) in caught.value.hint


def test_a_file_that_shrinks_while_it_is_read_ends_the_archive(paddlex: Path) -> None:
    big = paddlex / LAYOUT / "inference.pdiparams"
    big.write_bytes(bytes(3 * model_folders.CHUNK))
    pieces = pack(find(paddlex))
    with pytest.raises(Refused, match="became shorter"):
        for piece in pieces:
            if len(piece) == model_folders.CHUNK:
                os.truncate(big, model_folders.CHUNK)


# --- in


def test_a_round_trip_keeps_every_byte_and_gives_the_same_archive(paddlex: Path, tmp_path: Path) -> None:
    data, home = archive(paddlex), tmp_path / "home"
    home.mkdir()
    take_in(home, data)
    assert archive(home / ".paddlex") == data
    carried = contents(paddlex)
    assert models_in(home) == {n: d for n, d in carried.items() if n.startswith((MODELS, "fonts")) and "/." not in n}
    assert not (home / ".paddlex" / ".incoming").exists()


def test_what_was_there_stays_and_what_is_the_same_is_not_touched(paddlex: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    other, same, old = (home / ".paddlex" / MODELS / name for name in ("UVDoc", "PP-DocLayoutV3", "PaddleOCR-VL-1.6"))
    for folder in (other, old):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("older")
    take_in(home, archive(paddlex))
    kept = same.stat().st_ino, (same / "inference.yml").stat().st_mtime_ns
    assert (old / "config.json").read_text() == "{}" and (old / "model.safetensors").exists()
    assert (other / "config.json").read_text() == "older"
    before = models_in(home)
    take_in(home, archive(paddlex))
    assert models_in(home) == before
    assert (same.stat().st_ino, (same / "inference.yml").stat().st_mtime_ns) == kept


def test_an_archive_that_is_cut_anywhere_changes_nothing(paddlex: Path, tmp_path: Path) -> None:
    """Also at the border of two members, where it looks like a complete one."""
    data, home = archive(paddlex), tmp_path / "home"
    (home / ".paddlex" / MODELS / "PP-DocLayoutV3").mkdir(parents=True)
    (home / ".paddlex" / LAYOUT / "mine").write_text("mine")
    before = models_in(home)
    for end in [*range(0, len(data), 2560), len(data) - 1, len(data)]:
        with pytest.raises(Refused):
            fill(home, io.BytesIO(data[:end]))
        assert models_in(home) == before, end
        assert not (home / ".paddlex" / ".incoming").exists()


def test_killed_at_any_moment_leaves_whole_models_or_none_and_a_second_run_ends_well(paddlex: Path, tmp_path: Path) -> None:
    """By the program that runs in the container; it is killed when so much of the archive has been given to it."""
    big = paddlex / LAYOUT / "inference.pdiparams"
    big.write_bytes(os.urandom(6 * 2**20))
    data, home = archive(paddlex), tmp_path / "home"
    home.mkdir()
    for part in (0, 1, 3, 5):
        process = subprocess.Popen([sys.executable, PROGRAM, "fill", home], stdin=subprocess.PIPE)
        process.stdin.write(data[: part * 2**20])
        process.stdin.flush()
        process.kill()
        process.communicate()
        assert models_in(home) == {}
    done = subprocess.run([sys.executable, PROGRAM, "fill", home], input=data + WHOLE, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert archive(home / ".paddlex") == data


class PowerLoss(BaseException):
    """After it nothing of the program runs, not even what tidies up."""


def test_power_lost_between_any_two_renames_leaves_no_half_model(
    paddlex: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = archive(paddlex)
    whole = {name: contents(paddlex / MODELS / name) for name in ("PP-DocLayoutV3", "PaddleOCR-VL-1.6")}
    del whole["PaddleOCR-VL-1.6"][".cache/huggingface/model.metadata"]
    older = {"config.json": b"older"}
    rename = Path.rename
    for last in range(4):  # the font, one that is replaced (two renames), one that is new
        home = tmp_path / f"home{last}"
        old = home / ".paddlex" / VLM
        old.mkdir(parents=True)
        (old / "config.json").write_bytes(older["config.json"])
        done = []

        def counted(path: Path, target: Path, done: list = done, last: int = last) -> None:
            if len(done) == last:
                raise PowerLoss
            done.append(rename(path, target))

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", counted)
            patched.setattr(model_folders.shutil, "rmtree", lambda path, ignore_errors: None)
            with pytest.raises(PowerLoss):
                take_in(home, data)
        for path in (home / ".paddlex" / MODELS).iterdir():
            assert contents(path) in (whole[path.name], older), f"after {last} renames"
        take_in(home, data)
        assert archive(home / ".paddlex") == data


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", ".paddlex/../../x", f".paddlex/{MODELS}/../../x", ".bashrc", ".paddlex/temp/x", f".paddlex/{MODELS}/loose",
     f"{MODELS}/PP-DocLayoutV3/config.json"],
)  # fmt: skip
def test_a_member_of_another_place_is_refused(name: str, paddlex: Path, tmp_path: Path) -> None:
    member = tarfile.TarInfo(name)
    member.size = 1
    home = tmp_path / "deep" / "home"
    home.mkdir(parents=True)
    before = contents(tmp_path)
    with pytest.raises(Refused, match="no part of a model"):
        take_in(home, member.tobuf() + b"x".ljust(512, b"\0") + archive(paddlex))
    assert {name: data for name, data in contents(tmp_path).items() if ".incoming.lock" not in name} == before


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo(f".paddlex/{LAYOUT}/x")
    member.type, member.linkname = kind, "/etc/passwd"
    with pytest.raises(Refused, match="no part of a model"):
        take_in(tmp_path, member.tobuf() + bytes(1024))
    assert models_in(tmp_path) == {}


def test_a_full_disk_is_told_and_leaves_what_was_there(paddlex: Path, tmp_path: Path) -> None:
    (paddlex / LAYOUT / "inference.pdiparams").write_bytes(os.urandom(3 * 2**20))
    home = tmp_path / "small"
    home.mkdir()
    with small_disk(home, 2):
        done = subprocess.run([sys.executable, PROGRAM, "fill", home], input=archive(paddlex) + WHOLE, capture_output=True)
        assert done.returncode == model_folders.FAILED
        message, hint = json.loads(done.stderr)
        assert os.strerror(errno.ENOSPC) in message and "docker system df" in hint
        assert models_in(home) == {} and not (home / ".paddlex" / ".incoming").exists()


def test_an_empty_volume_says_so() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "list", "/nonexistent"], capture_output=True, text=True)
    assert done.returncode == model_folders.REFUSED and "no models yet" in json.loads(done.stderr)[0]
