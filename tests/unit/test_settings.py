"""One table of settings: compose.yaml, .env.example and the docs agree with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit.catalog.settings import SETTINGS, Settings, reachable_host
from kit.errors import ExitCode, KitError
from support import ROOT


def variables_of(compose_file: Path) -> dict[str, str]:
    """Every ${NAME:-default} of a compose file."""
    return dict(re.findall(r"\$\{(\w+):-([^}]*)\}", compose_file.read_text()))


def test_compose_has_the_defaults_of_the_table() -> None:
    used = variables_of(ROOT / "compose.yaml")
    assert used == {name: SETTINGS[name].default for name in used}


def test_compose_reads_every_setting_that_the_table_says_it_reads() -> None:
    wanted = {name for name, setting in SETTINGS.items() if setting.used_by in ("compose", "both")}
    assert set(variables_of(ROOT / "compose.yaml")) == wanted


@pytest.mark.parametrize("file", ["compose.yaml", "compose.preview.yaml"])
def test_every_variable_of_compose_has_a_default(file: str) -> None:
    names = set(re.findall(r"\$\{(\w+)", (ROOT / file).read_text()))
    assert names == set(variables_of(ROOT / file))


def test_the_preview_in_containers_has_the_defaults_of_the_table() -> None:
    used = variables_of(ROOT / "compose.preview.yaml")
    assert used == {name: SETTINGS[name].default for name in used}
    assert all(SETTINGS[name].used_by in ("preview", "both") for name in used)


def test_rendered_files_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "render.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + "run: .kit/venv/bin/python scripts/render.py"


def test_environment_wins_over_env_file_wins_over_default(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_PORT=9001\nAPI_BIND='0.0.0.0'\nVLM_GPU=\n")
    settings = Settings(tmp_path, {"API_PORT": "9002", "API_BIND": ""})
    assert settings["API_PORT"] == "9002"
    assert settings["API_BIND"] == "0.0.0.0"
    assert settings["VLM_GPU"] == "0"
    assert settings.api_url == "http://127.0.0.1:9002"


def test_a_setting_that_somebody_set_to_its_default_is_told_from_one_that_nobody_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("COMPOSE_FILE=compose.yaml\nVLM_GPU=\n")
    settings = Settings(tmp_path, {"API_PORT": "8080", "API_GPU": ""})
    names = ("COMPOSE_FILE", "API_PORT", "VLM_GPU", "API_GPU")
    assert [settings.given(name) for name in names] == ["compose.yaml", "8080", None, None]


@pytest.mark.parametrize(
    ("name", "value"), [("API_PORT", "eighty"), ("API_PORT", "0"), ("API_PORT", "65536"), ("API_BIND", "localhost")]
)
def test_a_wrong_value_names_itself_its_source_and_the_default(tmp_path: Path, name: str, value: str) -> None:
    (tmp_path / ".env").write_text(f"{name}={value}\n")
    with pytest.raises(KitError) as caught:
        Settings(tmp_path, {})
    assert caught.value.code == ExitCode.USAGE
    assert f"{name}={value}" in caught.value.message
    assert str(tmp_path / ".env") in caught.value.message
    assert SETTINGS[name].default in caught.value.hint


@pytest.mark.parametrize(
    ("bind", "host"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("10.1.2.3", "10.1.2.3")]
)
def test_reachable_host(bind: str, host: str) -> None:
    assert reachable_host(bind) == host
