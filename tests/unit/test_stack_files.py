"""Which Compose files are in force: the kit's choice, the user's, and what Compose itself reads."""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.catalog import images
from kit.catalog.settings import Settings
from kit.stack import files
from kit.stack.compose import ComposeStack
from support import API, ROOT, VLM

COMPOSE = Path(find_spec("compose").origin).with_name("docker-compose")
ONLINE, OFFLINE = "paddleocr3.6-nvidia-gpu", "paddleocr3.6-nvidia-gpu-offline"


def lay(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("services: {}\n")
    return folder


# --- what is chosen


@pytest.mark.parametrize(
    ("setting", "tags", "expected"),
    [
        (None, (ONLINE, ONLINE), "compose.yaml:compose.models.yaml"),
        ("", (ONLINE, ONLINE), "compose.yaml:compose.models.yaml"),
        (None, (OFFLINE, OFFLINE), "compose.yaml"),
        (None, (OFFLINE, ONLINE), "compose.yaml"),
        (None, (ONLINE, "my-own-build"), "compose.yaml"),
        ("compose.yaml", (ONLINE, ONLINE), "compose.yaml"),
        ("compose.yaml:mine.yaml", (ONLINE, ONLINE), "compose.yaml:mine.yaml"),
    ],
)
def test_the_volume_is_added_where_both_images_download_and_nobody_said_otherwise(
    setting: str | None, tags: tuple[str, str], expected: str, tmp_path: Path
) -> None:
    assert ":".join(files.in_force(lay(tmp_path, "compose.yaml"), setting, *tags)) == expected


def test_every_offline_family_goes_without_the_volume_and_every_other_with_it() -> None:
    assert {family.tag: files.want_volume(family.tag) for family in images.FAMILIES} == {
        family.tag: not family.offline for family in images.FAMILIES
    }


@pytest.mark.parametrize("override", files.OVERRIDES)
def test_an_override_counts_and_comes_after_the_kits_own_files(override: str, tmp_path: Path) -> None:
    lay(tmp_path, "compose.yaml", override)
    assert files.in_force(tmp_path, None, ONLINE) == ["compose.yaml", files.MODELS, override]
    assert files.in_force(tmp_path, None, OFFLINE) == ["compose.yaml", override]


def test_what_takes_a_service_away_comes_last_whatever_is_added_later() -> None:
    chosen = ["compose.yaml", "mine.yaml"]
    for name in (files.API_ONLY, files.MODELS, files.OFFLINE, files.ENGINE_20, files.MODELS):
        chosen = files.with_(chosen, name)
    assert chosen == ["compose.yaml", files.ENGINE_20, files.OFFLINE, files.MODELS, "mine.yaml", files.API_ONLY]
    assert files.without(chosen, files.API_ONLY) == chosen[:-1]


def test_a_folder_without_compose_files_has_none(tmp_path: Path) -> None:
    assert files.in_force(tmp_path, None, ONLINE) == []


# --- what Compose is told


def files_of(root: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, version: str = "26.1.5") -> list[str]:
    """The names behind --file; an engine of that version is played."""
    stack = ComposeStack(root, Settings(root, environ))
    monkeypatch.setattr(stack, "_run", lambda argv: SimpleNamespace(stdout=version))
    words = stack.argv("up")
    return [Path(word).name for word, before in zip(words[1:], words, strict=False) if before == "--file"]


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "26.1.5"])
def test_compose_yaml_set_by_hand_is_all_that_is_read(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, "compose.yaml", "compose.override.yaml")
    told = files_of(tmp_path, {"COMPOSE_FILE": "compose.yaml"}, monkeypatch, version)
    assert told == ([] if version.startswith("26") else ["compose.yaml", files.ENGINE_20])


def test_each_engine_gets_the_same_files_but_for_the_old_ones_override(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path, "compose.yaml", "compose.override.yaml")
    new, old = (files_of(tmp_path, {}, monkeypatch, version) for version in ("26.1.5", "20.10.24+dfsg1"))
    assert new == ["compose.yaml", files.MODELS, "compose.override.yaml"]
    assert old == ["compose.yaml", files.ENGINE_20, files.MODELS, "compose.override.yaml"]
    api_only = {"COMPOSE_FILE": f"compose.yaml:{files.API_ONLY}"}
    assert files_of(tmp_path, api_only, monkeypatch, "20.10.24") == ["compose.yaml", files.ENGINE_20, files.API_ONLY]
    already = {"COMPOSE_FILE": f"compose.yaml:{files.ENGINE_20}"}
    assert files_of(tmp_path, already, monkeypatch, "20.10.24") == ["compose.yaml", files.ENGINE_20]


def test_where_compose_reads_the_same_by_itself_it_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tags = {"API_IMAGE_TAG_SUFFIX": OFFLINE, "VLM_IMAGE_TAG_SUFFIX": OFFLINE}
    assert files_of(lay(tmp_path, "compose.yaml", "compose.override.yaml"), tags, monkeypatch) == []


# --- our own files, as the real Compose binary takes them together


def composed(*names: str, **environment: str) -> dict[str, Any]:
    words = [word for name in names for word in ("--file", str(ROOT / name))]
    done = subprocess.run(
        [COMPOSE, *words, "--env-file", os.devnull, "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], "HOME": os.devnull} | environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "more", [(), (files.ENGINE_20,), (files.MODELS,), (files.ENGINE_20, files.MODELS)], ids=lambda names: "+".join(names)
)
def test_offline_asks_nobody_and_changes_nothing_else(more: tuple[str, ...]) -> None:
    chosen = list(("compose.yaml", *more))
    plain, offline = composed(*chosen), composed(*files.with_(chosen, files.OFFLINE))
    for name in (API, VLM):
        service, before = offline["services"][name], plain["services"][name]
        ours, theirs = service.pop("environment"), before.pop("environment")
        added = {key: value for key, value in ours.items() if theirs.get(key) != value}
        assert {**theirs, **added} == ours and not set(theirs) & set(added)
        assert added["PADDLE_PDX_DISABLE_MODEL_SOURCE_CHECK"] == "True" and added["HF_HUB_OFFLINE"] == "1"
        assert ("PADDLE_PDX_LOCAL_FONT_FILE_PATH" in added) is (name == API)
        assert (added.get("VLLM_NO_USAGE_STATS"), added.get("DO_NOT_TRACK")) == (("1", "1") if name == VLM else (None, None))
        assert service.pop("pull_policy") == "never"
        assert service == before
    assert offline["networks"].pop("back").pop("internal") is True
    assert "internal" not in offline["networks"]["front"]


def test_offline_shuts_the_network_that_the_gateway_can_open() -> None:
    """./kit configure writes VLM_NETWORK_INTERNAL=false for online images behind a gateway."""
    for one, other in ((files.GATEWAY, files.OFFLINE), (files.OFFLINE, files.GATEWAY)):
        chosen = files.with_(files.with_(["compose.yaml"], one), other)
        assert composed(*chosen, VLM_NETWORK_INTERNAL="false")["networks"]["back"].get("internal") is True, chosen


def test_offline_goes_with_an_api_alone() -> None:
    chosen = files.with_(files.with_(["compose.yaml", files.API_ONLY], files.OFFLINE), files.MODELS)
    config = composed(*chosen, VLM_URL="http://10.0.0.5:8118/v1", VLM_HOST="10.0.0.5")
    assert list(config["services"]) == [API]
    service = config["services"][API]
    assert service["pull_policy"] == "never" and service["environment"]["VLM_URL"] == "http://10.0.0.5:8118/v1"
    assert "10.0.0.5" in service["environment"]["NO_PROXY"].split(",")
    assert set(service["networks"]) == {"front", "back"}, "its own port, and a VLM server of yours, need a way out"


def test_one_volume_of_the_project_is_the_home_of_both_services() -> None:
    config = composed("compose.yaml", files.MODELS)
    for service in config["services"].values():
        (volume,) = [mount for mount in service["volumes"] if mount["type"] == "volume"]
        assert (volume["source"], volume["target"]) == ("models", "/home/paddleocr")
        configs = [mount["target"] for mount in service["volumes"] if mount["type"] == "bind"]
        assert any(target.startswith("/home/paddleocr/") for target in configs), "the mounted config stays visible in it"
    assert config["volumes"]["models"]["name"] == "paddleocr-vl_models"
    second = composed("compose.yaml", files.MODELS, COMPOSE_PROJECT_NAME="paddleocr-vl-gpu1")
    assert second["volumes"]["models"]["name"] == "paddleocr-vl-gpu1_models"
