"""How ./kit configure edits .env and puts files in place: what is the user's stays, what is written is whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dotenv import dotenv_values
from kit import configure
from kit.catalog.settings import env_example
from kit.errors import ExitCode, KitError
from support import small_disk

# --- .env


MINE = (
    "# my notes\n"
    "\n"
    "export VLM_GPU = 3   # the quiet one\n"
    "MY_OWN='a\nAPI_GPU=inside a value\nb'\n"
    "API_GPU=1\r\n"
    "API_PORT=9000\n"
    "   API_GPU=2\n"
    "not a setting at all\n"
    "OTHER=x # no newline at the end"
)


def test_only_the_decided_keys_change_and_all_else_stays_byte_for_byte() -> None:
    after = configure.edited_env(MINE, {"VLM_GPU": "0", "API_GPU": "GPU-5"})
    assert after == MINE.replace("VLM_GPU = 3 ", "VLM_GPU = 0 ").replace("   API_GPU=2\n", "   API_GPU=GPU-5\n")


def test_a_value_that_is_right_already_is_left_as_it_is_written() -> None:
    text = "VLM_GPU = '0'   # mine\n"
    assert configure.edited_env(text, {"VLM_GPU": "0"}) == text


def test_a_new_key_comes_after_its_commented_line_or_at_the_end() -> None:
    after = configure.edited_env("#API_GPU=0\nX=1", {"API_GPU": "1", "VLM_GPU": "2"})
    assert after == "#API_GPU=0\nAPI_GPU=1\nX=1\nVLM_GPU=2\n"
    example = configure.edited_env(env_example(), {"VLM_GPU": "7"})
    assert [line for line in example.splitlines() if line not in env_example().splitlines()] == ["VLM_GPU=7"]
    assert "#VLM_GPU=0\nVLM_GPU=7\n" in example


def test_lines_end_as_the_file_has_them() -> None:
    assert configure.edited_env("A=1\r\n", {"A": "2", "B": "3"}) == "A=2\r\nB=3\r\n"


@pytest.mark.parametrize("text", ["", "A=1", "A=1\n", "#A=0", "A='x'\n", 'A="x\ny"\nB=1\n', "A=\n", "A\n"])
def test_what_is_written_is_what_compose_and_the_kit_read(text: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(configure.edited_env(text, {"A": "GPU-1", "C": "./x.yaml"}))
    values = dotenv_values(tmp_path / ".env")
    assert (values["A"], values["C"]) == ("GPU-1", "./x.yaml")
    assert (
        configure.edited_env((tmp_path / ".env").read_text(), {"A": "GPU-1", "C": "./x.yaml"}) == (tmp_path / ".env").read_text()
    )


# --- writing


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    (tmp_path / ".env").write_text("OLD=1\n")

    def fail(_: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises((KeyboardInterrupt, KitError)):
        configure.write([configure.Change(tmp_path / ".env", "OLD=1\n", "NEW=2\n")])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {".env": "OLD=1\n"}


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    with small_disk(tmp_path, 1):
        (tmp_path / ".env").write_text("OLD=1\n")
        with pytest.raises(KitError, match="No space left on device") as caught:
            configure.write([configure.Change(tmp_path / ".env", "OLD=1\n", "x" * 2**21)])
        assert caught.value.code == ExitCode.ENVIRONMENT
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {".env": "OLD=1\n"}


def test_rights_and_links_stay(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("OLD=1\n")
    (tmp_path / "elsewhere").chmod(0o640)
    (tmp_path / ".env").symlink_to("elsewhere")
    configure.write([configure.Change(tmp_path / ".env", "OLD=1\n", "NEW=2\r\n")])
    assert (tmp_path / ".env").is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"NEW=2\r\n"
    assert (tmp_path / "elsewhere").stat().st_mode & 0o777 == 0o640
    configure.write([configure.Change(tmp_path / "new", None, "A=1\n")])
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o644, "Compose may run as another user"
