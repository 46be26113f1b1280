"""./kit export with an engine that is played: names, bases, what is continued, and what is refused before anything is written."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundles import MANIFEST, README, parts, read_manifest, state
from kit import cli, console
from kit.bundle import engine, export, kit_archive, room, wanted
from kit.bundle import parts as stream
from kit.bundle.manifest import Manifest
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts import docker
from kit.facts.disk import Space
from kit.verbs import export as verb
from played_engine import MIB, REFERENCES, PlayedEngine, Silent, digest
from support import ROOT

ONLINE, OFFLINE = "paddleocr3.6-nvidia-gpu", "paddleocr3.6-nvidia-gpu-offline"


class Stopped(Silent):
    """Ctrl-C when so many bytes of the images have come."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise KeyboardInterrupt


def interrupted(folder: Path, **more: Any) -> dict[str, tuple[int, int, int]]:
    """An export that was stopped when it had written a part or two; what is complete."""
    with pytest.raises(KeyboardInterrupt):
        PlayedEngine().export(folder, progress=Stopped(5 * MIB // 2), **more)
    assert parts(folder)
    return {name: entry for name, entry in state(folder).items() if name.startswith("images")}


def layers_in(manifest: Manifest) -> set[str]:
    return {frame.name for frame in manifest.frames if frame.kind == "layer"}


# --- names


@pytest.mark.parametrize(
    ("reference", "listed"),
    [
        ("docker.io/paddlepaddle/vl:1", "paddlepaddle/vl:1"),
        ("index.docker.io/paddlepaddle/vl:1", "paddlepaddle/vl:1"),
        ("docker.io/library/busybox:1", "busybox:1"),
        ("library/busybox", "busybox:latest"),
        ("lan:5000/library/vl", "lan:5000/library/vl:latest"),
        ("paddlepaddle/vl:1", "paddlepaddle/vl:1"),
    ],
)
def test_a_name_is_told_as_the_engine_lists_it(reference: str, listed: str) -> None:
    assert docker.familiar(reference) == listed


@pytest.mark.parametrize("old", [False, True], ids=["new engine", "old engine"])
def test_images_of_docker_hub_are_found_in_the_archive_under_their_short_names(tmp_path: Path, old: bool) -> None:
    """Also by what a base lets out, which is looked for in the archive's own index."""
    references = {"paddleocr-vl-api": "docker.io/hub/api:1", "paddleocr-vlm-server": "index.docker.io/hub/vlm:1"}
    saved_as = {"docker.io/hub/api:1": "hub/api:1", "index.docker.io/hub/vlm:1": "hub/vlm:1"}
    PlayedEngine(7, references, saved_as, old).export(tmp_path / "base")
    manifest, _ = PlayedEngine(8, references, saved_as, old).export(tmp_path / "next", bases=(tmp_path / "base",))
    assert {image.service: image.reference for image in manifest.images} == references, "as Compose asks for them"


def test_digests_of_a_registry_are_carried(tmp_path: Path) -> None:
    manifest, _ = PlayedEngine().export(tmp_path / "bundle")
    assert [image.digests for image in manifest.images] == [(f"kit.test/{name}@{digest(b'x')}",) for name in ("api", "vlm")]


# --- bases


@pytest.mark.parametrize("old", [False, True], ids=["new engine", "old engine"])
def test_an_engine_that_tells_the_layers_last_is_asked_twice(tmp_path: Path, old: bool) -> None:
    first, then = PlayedEngine(old=old), PlayedEngine(8, old=old)
    base, _ = first.export(tmp_path / "base")
    manifest, _ = then.export(tmp_path / "next", bases=(tmp_path / "base",))
    assert (first.saves, then.saves) == (1, 2)
    assert layers_in(base) == {digest(layer) for layer in first.layers}
    assert layers_in(manifest) == {digest(layer) for layer in then.layers[1:]}, "the shared layer is left out"


# --- an interrupted export


def test_the_kit_is_written_anew_when_its_files_have_changed_and_the_parts_stay(tmp_path: Path) -> None:
    def kit(text: str) -> dict[str, Any]:
        return {"write_kit": lambda path, arch: path.write_text(f"{text} for {arch}"), "kit_state": text}

    folder = tmp_path / "bundle"
    kept = interrupted(folder, **kit("old"))
    manifest, said = PlayedEngine().export(folder, **kit("new"), settings={"VLM_MODEL_NAME": "another"})
    assert manifest.settings == {"VLM_MODEL_NAME": "another"}
    assert (folder / "kit.tar.gz").read_text() == "new for amd64", "for the platform of the images"
    assert state(folder).items() >= kept.items() and any("continuing" in line for line in said)

    shutil.rmtree(folder)
    interrupted(folder, **kit("same"))
    before = state(folder)["kit.tar.gz"]
    PlayedEngine().export(folder, **kit("same"))
    assert state(folder)["kit.tar.gz"] == before


def test_what_tells_one_kit_from_another_is_what_it_is_made_of(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("page")
    (tmp_path / "run").write_text("run")

    def told() -> str:
        return kit_archive.state(tmp_path, tmp_path / "bundle", Settings(tmp_path, {}))

    seen = [told()]
    for change in (
        lambda: (tmp_path / ".env").write_text("API_PORT=1\n"),
        lambda: (tmp_path / ".env").write_text("API_PORT=2\n"),
        lambda: (tmp_path / "page.md").unlink(),
        lambda: (tmp_path / "run").chmod(0o755),
    ):
        change()
        seen.append(told())
    assert len(set(seen)) == 5 and told() == seen[-1]
    os.utime(tmp_path / "run", (1, 1))
    assert told() == seen[-1]


def test_what_a_killed_export_left_half_written_is_gone_in_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    interrupted(folder)
    for name in (".images.tar.zst.007.partial", ".kit.tar.gz.partial"):
        (folder / name).write_text("half")
    (folder / ".wheels.partial").mkdir()
    (folder / ".wheels.partial" / "a.whl").touch()
    PlayedEngine().export(folder)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


# --- what is refused before anything is written


@pytest.mark.parametrize("fault", ["a finished bundle", "papers", "no base", "a file"])
def test_the_folder_and_the_base_are_looked_at_before_anything_is_pulled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    folder, base = tmp_path / "bundle", tmp_path / "base"
    PlayedEngine().export(base)
    match fault:
        case "a finished bundle":
            shutil.copytree(base, folder)
        case "papers":
            folder.mkdir()
            (folder / "thesis.txt").touch()
        case "no base":
            (base / MANIFEST).unlink()
        case "a file":
            folder.touch()
    pulled: list[Any] = []
    monkeypatch.setattr(verb.docker, "docker", lambda: docker.Docker("26.1", "2.1"))
    monkeypatch.setattr(verb.docker, "engine", lambda: object())
    monkeypatch.setattr(verb.wanted, "obtain", lambda *words, **options: pulled.append(words))
    before = state(folder) if folder.is_dir() else None
    code = cli.main(["export", str(folder), "--no-kit", "--base", str(base)])
    assert code in (ExitCode.INPUT, ExitCode.ENVIRONMENT) and not pulled
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "hint"]
    assert (state(folder) if folder.is_dir() else None) == before


@pytest.mark.parametrize(("api", "vlm", "refused"), [(ONLINE, OFFLINE, True), (OFFLINE, OFFLINE, True), (ONLINE, "mine", False)])
def test_models_are_not_carried_beside_images_that_have_them_inside(api: str, vlm: str, refused: bool) -> None:
    stack: Any = SimpleNamespace(preview=False, wanted_images=lambda: {"a": f"reg/api:{api}", "v": f"reg/vlm:{vlm}"})
    if not refused:
        return wanted.require_online(stack)
    with pytest.raises(KitError, match="would hide them") as caught:
        wanted.require_online(stack)
    assert caught.value.code == ExitCode.USAGE and OFFLINE in caught.value.message


def test_more_parts_than_a_shell_can_sort_are_refused_with_the_size_that_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MOST_PARTS", 2)  # of 2.5 MiB of layers
    with pytest.raises(KitError, match="more than 2 parts") as caught:
        PlayedEngine().export(tmp_path / "bundle")
    assert caught.value.code == ExitCode.USAGE and not (tmp_path / "bundle").exists()
    enough = int(re.search(r"--part-size (\d+)MiB", caught.value.hint)[1])
    PlayedEngine().export(tmp_path / "bundle", part_size=enough * MIB)
    assert 1 < len(parts(tmp_path / "bundle")) <= 2 < MIB * 5 // 2 / ((enough - 1) * MIB - export.BESIDE)


# --- room


class Disks:
    """Free bytes, and which disk, by folder."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, engine_free: int, bundle_free: int, same: bool) -> None:
        free = {"/engine": engine_free, "/bundle": bundle_free}
        monkeypatch.setattr(room, "space", lambda folder: Space(str(folder), free[str(folder)], 10**12))
        monkeypatch.setattr(room, "_device", lambda folder: 1 if same else str(folder))
        self.told: Any = SimpleNamespace(root="/engine", here=True, containerd=False)

    def check(self, **sizes: Any) -> None:
        room.check(Path("/bundle"), self.told, **{"saved": 1000, "packed": 1000, "models": 0, "kit": False, "kept": 0} | sizes)


def test_on_one_disk_the_engine_and_the_bundle_need_room_together(monkeypatch: pytest.MonkeyPatch) -> None:
    Disks(monkeypatch, 1649, 1649, same=False).check()
    Disks(monkeypatch, 1650, 1650, same=True).check()
    with pytest.raises(KitError, match="on the same disk") as caught:
        Disks(monkeypatch, 1649, 1649, same=True).check()
    assert caught.value.code == ExitCode.ENVIRONMENT


def test_the_store_of_containerd_lays_nothing_out(monkeypatch: pytest.MonkeyPatch) -> None:
    disks = Disks(monkeypatch, 650, 650, same=True)
    disks.told.containerd = True
    disks.check()


@pytest.mark.parametrize(
    ("sizes", "least"),
    [
        ({}, 650),
        ({"packed": 100}, 65),
        ({"models": 500}, 1150),
        ({"kit": True}, 650 + room.KIT),
        ({"models": 500, "kept": 900}, 250),
        ({"kept": 900}, 0),
    ],
)
def test_all_that_is_to_be_written_counts_and_what_is_there_does_not(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, Any], least: int
) -> None:
    Disks(monkeypatch, 1000, least, same=False).check(**sizes)
    if least:
        with pytest.raises(KitError, match="are needed"):
            Disks(monkeypatch, 1000, least - 1, same=False).check(**sizes)


def test_with_a_base_what_it_lacks_needs_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(export.room, "check", lambda folder, told, **sizes: asked.append(sizes["packed"]))
    PlayedEngine(7).export(tmp_path / "base")
    PlayedEngine(8).export(tmp_path / "next", bases=(tmp_path / "base",))
    PlayedEngine(9).export(tmp_path / "chained", bases=(tmp_path / "next",))
    whole, own, unknown = asked
    assert whole == 5 * MIB // 2 and abs(own - MIB) < 4096 and unknown == 0


# --- failures of the disk


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Paths that cannot be removed or read any more, as on a stick that was pulled."""
    gone: list[Path] = []
    unlink, opened = Path.unlink, Path.open

    def fail(path: Path) -> None:
        if any(path == one or one in path.parents for one in gone):
            raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: fail(path) or unlink(path, missing_ok))
    monkeypatch.setattr(Path, "open", lambda path, *words, **options: fail(path) or opened(path, *words, **options))
    yield gone


def test_a_part_that_cannot_be_tidied_up_hides_no_reason(tmp_path: Path, failing: list[Path]) -> None:
    with pytest.raises(KitError, match="the reason"), stream.PartWriter(tmp_path, "images.tar.zst", 9, [], print) as writer:
        writer.write(b"1234")
        failing.append(tmp_path)
        raise KitError("the reason")


@pytest.mark.parametrize("moment", ["when it begins", "when it ends"])
def test_a_disk_that_goes_away_is_one_line(tmp_path: Path, failing: list[Path], moment: str) -> None:
    folder = tmp_path / "bundle"
    if moment == "when it begins":
        interrupted(folder)
        failing += parts(folder)  # its hash is asked for
    else:
        failing.append(folder / f".{README}.partial")
    with pytest.raises(KitError, match=f"cannot write to {folder}: Input/output error") as caught:
        PlayedEngine().export(folder)
    assert caught.value.code == ExitCode.ENVIRONMENT and not (folder / MANIFEST).exists()


def test_a_damaged_frame_names_its_part_though_that_is_gone(tmp_path: Path) -> None:
    manifest, _ = PlayedEngine().export(tmp_path / "bundle")
    frame = next(frame for frame in manifest.frames if frame.kind == "layer")
    first = parts(tmp_path / "bundle")[0]
    first.unlink()
    assert stream.culprit(tmp_path / "bundle", manifest.parts(frame.stream), frame).startswith(first.name)


# --- what the engine tells


def test_sizes_of_shared_layers_are_told_though_a_build_step_has_line_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(size: int, said: str) -> str:
        return json.dumps({"Size": str(size), "CreatedAt": "2026", "CreatedBy": said, "ID": "<missing>", "Comment": ""})

    histories = {
        "a": [step(5, "own\nof a"), step(70, "RUN <<END\nmake\tall\nEND"), step(30, "base")],
        "b": [step(6, "own"), step(70, "RUN <<END\nmake\tall\nEND"), step(30, "base")],
    }
    monkeypatch.setattr(engine, "ask", lambda argv, timeout: ("\n".join(histories[argv[-1]]), ""))
    assert engine.shared_size(["a", "b"]) == 100


# --- README.txt


def readme(folder: Path, **more: Any) -> str:
    PlayedEngine().export(folder, **more)
    return (folder / README).read_text()


def test_the_shell_s_way_goes_by_the_files_that_are_in_force(tmp_path: Path) -> None:
    names = ("compose.yaml", "compose.offline.yaml", "m y.yaml")
    text = readme(tmp_path / "bundle", write_kit=lambda path, arch: path.write_text("kit"), compose_files=names)
    (line,) = [line for line in text.splitlines() if "COMPOSE_FILE" in line]
    (tmp_path / ".env").write_text("API_PORT=1")
    assert os.waitstatus_to_exitcode(os.system(f"cd {tmp_path} && {line}")) == 0
    assert (tmp_path / ".env").read_text() == "API_PORT=1\nCOMPOSE_FILE=compose.yaml:compose.offline.yaml:m y.yaml\n"
    assert "\n  docker compose up -d\n" in text and "compose.engine-20.yaml right behind compose.yaml" in text


def test_the_docs_and_the_readme_look_at_a_signature_in_the_same_way(tmp_path: Path) -> None:
    text = readme(tmp_path / "bundle", write_kit=lambda path, arch: path.write_text("kit"))
    docs = (ROOT / "docs" / "offline.md").read_text()
    for line in re.findall(r"^  ((?:ssh-keygen|minisign|grep) .*)$", text, re.MULTILINE):
        assert line in docs


def test_without_the_kit_no_file_is_named_that_is_not_there(tmp_path: Path) -> None:
    text = readme(tmp_path / "bundle")
    assert "docker compose" not in text and "tar -xzf" not in text and "docker load" in text


def test_models_go_into_the_volume_of_the_project_that_is_in_force(tmp_path: Path) -> None:
    class Models:
        folders = [("PP-DocLayoutV3", 10)]

        def chunks(self) -> Iterator[bytes]:
            yield bytes(1024)

    text = readme(tmp_path / "bundle", models=Models(), volume="mine_models")
    assert "-v mine_models:/home/paddleocr --entrypoint tar \\\n    kit.test/vlm:1 -xf - -C /home/paddleocr" in text
    assert read_manifest(tmp_path / "bundle")["models"] == [{"name": "PP-DocLayoutV3", "size": 10}]
    assert list(REFERENCES) == [image["service"] for image in read_manifest(tmp_path / "bundle")["images"]]


# --- how far it has come, and what is measured


def test_the_rate_and_the_time_left_are_told_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 0.0, 4.0, 20.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(console, "_err", console.Console(stderr=True, soft_wrap=True, force_terminal=False))
    with console.Bytes() as progress:
        progress.start("images", 100 * MIB)
        progress.advance(10 * MIB)
        progress.advance(30 * MIB)
    assert capsys.readouterr().err.splitlines() == [
        "images: 100.0 MiB", "images: 40.0 MiB of 100.0 MiB, 2 MiB/s, 30 s left"
    ]  # fmt: skip


def test_the_bench_keeps_the_highest_peaks_of_all_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bench_of_bundles", ROOT / "scripts" / "bench" / "bundle.py")
    bench = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, bench)
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec.loader.exec_module(bench)
    way = bench.Way()
    way.add(3.0, bench.Peaks(extra=5, memory=200))
    way.add(1.0, bench.Peaks(extra=7, memory=100))
    assert (way.seconds, way.peaks) == ([3.0, 1.0], bench.Peaks(extra=7, memory=200))
