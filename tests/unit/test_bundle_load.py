"""./kit load: what it writes to .env, what it asks of the disk, of a base and of the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bundles import copy, edit_manifest
from kit.bundle import load as loading
from kit.bundle import manifest as manifests
from kit.bundle import models, wanted
from kit.catalog.settings import Settings
from kit.errors import ExitCode, KitError
from kit.facts.disk import Space
from kit.stack import files
from kit.verbs import load as verb
from played_engine import MIB, PlayedEngine, Silent
from test_stack_files import lay

# --- .env


@pytest.mark.parametrize(
    ("environ", "models", "expected"),
    [
        ({}, False, "compose.yaml:compose.offline.yaml:compose.override.yaml"),
        ({}, True, "compose.yaml:compose.models.yaml:compose.offline.yaml:compose.override.yaml"),
        ({"API_REPLICAS": "2"}, False, "compose.yaml:compose.gateway.yaml:compose.offline.yaml:compose.override.yaml"),
        ({"COMPOSE_FILE": "compose.yaml:compose.models.yaml:mine.yaml"}, False, "compose.yaml:compose.offline.yaml:mine.yaml"),
        ({"COMPOSE_FILE": "compose.yaml", "API_REPLICAS": "2"}, False, "compose.yaml:compose.offline.yaml"),
    ],
)
def test_the_files_in_force_stay_so_on_a_host_without_network(
    tmp_path: Path, environ: dict[str, str], models: bool, expected: str
) -> None:
    """The gateway too, which has the keys and the certificate, where API_REPLICAS alone had turned it on."""
    lay(tmp_path, "compose.yaml", "compose.override.yaml")
    settings = Settings(tmp_path, environ)
    assert files.SEPARATOR.join(wanted.compose_files(tmp_path, settings, models=models)) == expected


def test_a_gateway_that_the_replicas_turned_on_stays_when_the_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "compose.yaml")
    (tmp_path / ".env").write_text("API_REPLICAS=2\nGATEWAY_API_KEYS_FILE=./keys\n")
    monkeypatch.setattr(verb, "ROOT", tmp_path)
    for name in ("API_REPLICAS", "COMPOSE_FILE"):
        monkeypatch.delenv(name, raising=False)
    verb._configure(SimpleNamespace(kind="gpu", settings={}, models=()))
    assert "COMPOSE_FILE=compose.yaml:compose.gateway.yaml:compose.offline.yaml\n" in (tmp_path / ".env").read_text()


# --- bases


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three bundles, each based on the one before."""
    folder = tmp_path_factory.mktemp("chain")
    made: list[Path] = []
    for number in range(3):
        made.append(folder / str(number))
        PlayedEngine(7 + number).export(made[-1], bases=made[-2:-1], compose_files=(f"{number}.yaml",))
        edit_manifest(made[-1], lambda manifest, number=number: manifest.update(created=f"day {number}"))
    return made


def bundle(folder: Path, *bases: Path) -> loading.Bundle:
    return loading.Bundle(folder, manifests.read(folder), bases)


def test_the_bundle_that_is_missing_is_named_also_when_its_base_is_there(chain: list[Path]) -> None:
    first, second, third = chain
    assert [base.created for base in bundle(third).lacking] == ["day 1"]
    assert [base.created for base in bundle(third, second).lacking] == ["day 0"]
    whole = bundle(third, first, second)
    assert whole.lacking == [] and all(whole.layer(layer) for image in whole.manifest.images for layer in image.layers)


def test_a_folder_on_which_the_bundle_is_not_based_is_refused(chain: list[Path], tmp_path: Path) -> None:
    first, second, third = chain
    other = copy(second, tmp_path / "other")
    edit_manifest(other, lambda manifest: manifest.update(kit="another"))
    for given in (third, other, first):
        with pytest.raises(KitError, match="is not a bundle on which") as caught:
            bundle(third, given)
        assert str(given) in caught.value.message and "day 1" in caught.value.hint
    with pytest.raises(KitError) as caught:
        bundle(first, second)
    assert "leave --base out" in caught.value.hint


# --- what is sent, and its room


def work(chosen: loading.Bundle, *, containerd: bool = False, arch: str = "x86_64") -> loading._Load:
    told: Any = SimpleNamespace(containerd=containerd, arch=arch, here=True, root="/engine")
    return loading._Load(chosen, told, Silent(), lambda line: None)


@pytest.mark.parametrize("containerd", [False, True])
def test_layers_that_are_nowhere_are_asked_for_where_they_can_be_had(chain: list[Path], containerd: bool) -> None:
    """containerd's store takes them from a folder alone, whatever is loaded."""
    loaded = work(bundle(chain[1]), containerd=containerd)
    with pytest.raises(KitError, match="the one of day 0") as caught:
        loaded._sent(loaded.bundle.manifest.images[0], 0)
    assert caught.value.code == ExitCode.ENVIRONMENT and "--base FOLDER" in caught.value.hint
    assert ("load that one first" in caught.value.hint) is not containerd


@pytest.mark.parametrize(
    ("containerd", "free", "at_once"),
    [
        (False, 6 * MIB, True),  # 1.5 MiB shared, then 0.5 and 1: all of it twice
        (False, 6 * MIB - 1, False),
        (False, 9 * MIB // 2, False),  # all of it, and the largest archive
        (False, 9 * MIB // 2 - 1, None),
        (True, 6 * MIB, False),
        (True, 6 * MIB - 1, None),
    ],
)
def test_room_is_needed_for_what_is_sent_and_shared_layers_count_once(
    chain: list[Path], monkeypatch: pytest.MonkeyPatch, containerd: bool, free: int, at_once: bool | None
) -> None:
    free += 0 if free % 2 else 8192  # for the headers of three layers, twice
    monkeypatch.setattr(loading, "space", lambda folder: Space(str(folder), free, 10**12))
    groups: list[int] = []
    monkeypatch.setattr(loading._Load, "_load_together", lambda self, images, sent: groups.append(len(images)))
    loaded = work(bundle(chain[0]), containerd=containerd)
    if at_once is None:
        with pytest.raises(KitError, match="loading needs up to"):
            loaded._load_all(loaded.bundle.manifest.images)
        return
    loaded._load_all(loaded.bundle.manifest.images)
    assert groups == ([1, 2] if at_once else [1, 1] if containerd else [1, 1, 1])


def test_layers_that_the_engine_has_need_no_room(chain: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "space", lambda folder: Space(str(folder), 3 * MIB, 10**12))
    monkeypatch.setattr(loading._Load, "_load_together", lambda self, images, sent: None)
    loaded = work(bundle(chain[0]))
    loaded.present = [PlayedEngine(7).find(image.reference) for image in loaded.bundle.manifest.images[1:]]
    loaded._load_all(loaded.bundle.manifest.images)


@pytest.mark.parametrize(
    ("platform", "arch", "fits"),
    [
        ("linux/amd64", "x86_64", True),
        ("linux/arm64/v8", "aarch64", True),
        ("linux/arm64", "x86_64", False),
        ("linux/s390x", "x86_64", False),
        ("linux/s390x", "s390x", True),
        ("windows/amd64", "x86_64", False),
        ("linux", "x86_64", False),
    ],
)
def test_the_platform_is_compared_whatever_it_is_called(
    chain: list[Path], tmp_path: Path, platform: str, arch: str, fits: bool
) -> None:
    folder = copy(chain[0], tmp_path / "bundle")
    edit_manifest(folder, lambda manifest: manifest.update(platform=platform))
    loaded = work(bundle(folder), arch=arch)
    if fits:
        return loaded._check_platform()
    with pytest.raises(KitError, match=f"the images are for {platform}"):
        loaded._check_platform()


# --- what is echoed


def test_the_commands_of_a_load_are_shown_before_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\ncat > /dev/null\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    loading.engine.load([b"archive"], loading.engine.Together())
    loading.engine.tag("sha256:1", "a:1")
    loading.engine.untag("b:1")
    with models.Volume("v_models", "v", "image:1", "1000:1000").container("fill") as process:
        process.communicate(b"")
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("$ ")]
    assert shown[:3] == ["$ docker load --quiet", "$ docker tag sha256:1 a:1", "$ docker image rm --no-prune b:1"]
    assert shown[3].startswith("$ docker run --rm ") and shown[3].endswith(" image:1 model_folders.py fill /home/paddleocr")
    assert len(shown) == 4
