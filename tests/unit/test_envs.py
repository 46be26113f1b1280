"""Environments: made once, remade on change, never half there; ./kit itself on a bare machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from kit import envs
from kit.errors import ExitCode, KitError
from support import ROOT, small_disk

PLENTY = 1


def quiet(line: str) -> None:
    pass


def test_made_once_and_again_when_the_requirements_change(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("")
    venv = tmp_path / "venv"
    assert envs.ensure(venv, tmp_path / "r.txt", needs_bytes=PLENTY, report=quiet) is True
    assert subprocess.run([envs.python_of(venv), "-c", "import pip"]).returncode == 0
    assert envs.ensure(venv, tmp_path / "r.txt", needs_bytes=PLENTY, report=quiet) is False
    (tmp_path / "r.txt").write_text("# changed\n")
    assert envs.ensure(venv, tmp_path / "r.txt", needs_bytes=PLENTY, report=quiet) is True


def test_what_failed_is_removed_and_named(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("./no-such-package\n")
    with pytest.raises(KitError) as caught:
        envs.ensure(tmp_path / "venv", tmp_path / "r.txt", needs_bytes=PLENTY, report=quiet)
    assert caught.value.code == ExitCode.ENVIRONMENT
    assert "no-such-package" in caught.value.message
    assert not (tmp_path / "venv").exists()
    assert "no-such-package" in (tmp_path / "venv-install.log").read_text()


def test_an_interrupted_installation_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("")
    envs.ensure(tmp_path / "venv", tmp_path / "r.txt", needs_bytes=PLENTY, report=quiet)
    (tmp_path / "venv" / envs.STAMP).unlink()  # as after a power cut
    assert envs.ensure(tmp_path / "venv", tmp_path / "r.txt", needs_bytes=PLENTY, report=quiet) is True


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("")
    made: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda: made.append(envs.ensure(tmp_path / "venv", tmp_path / "r.txt", needs_bytes=PLENTY, report=quiet))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, True]


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("")
    with pytest.raises(KitError) as caught:
        envs.ensure(tmp_path / "venv", tmp_path / "r.txt", needs_bytes=2**60, report=quiet)
    assert caught.value.code == ExitCode.ENVIRONMENT
    assert "not enough disk space" in caught.value.message and "are needed" in caught.value.message
    assert not (tmp_path / "venv").exists()


# --- the script ./kit


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A clone without .kit."""
    for part in ("kit", "scripts"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        copy(ROOT / part, tmp_path / part)
    return tmp_path


def run_kit(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [clone / "kit", *arguments], env=os.environ | environment, capture_output=True, text=True, cwd="/", timeout=300
    )


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_no_python_is_said_with_a_hint(bare: Path, tmp_path: Path) -> None:
    old = script(tmp_path / "python3.8", "exit 1")
    done = run_kit(bare, "status", KIT_PYTHON=str(old))
    assert done.returncode == ExitCode.ENVIRONMENT
    assert done.stderr.startswith("error: no Python 3.10 or newer was found")
    assert "hint: " in done.stderr and not (bare / ".kit").exists()


def test_a_python_without_ensurepip_is_said_with_the_package_to_install(bare: Path, tmp_path: Path) -> None:
    # As Debian has it before python3-venv is installed.
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "ensurepip.py").write_text("raise ImportError\n")
    done = run_kit(bare, "status", PYTHONPATH=str(tmp_path / "hide"))
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "ensurepip is missing" in done.stderr and "hint: on Debian and Ubuntu: sudo apt-get install python3" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_may_not_be_written(bare: Path) -> None:
    (bare / ".kit").write_text("a file where the folder should be")
    done = run_kit(bare, "status")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "error: cannot make" in done.stderr and "Traceback" not in done.stderr


def test_a_full_disk_leaves_nothing(bare: Path) -> None:
    (bare / ".kit").mkdir()
    with small_disk(bare / ".kit", 20):
        done = run_kit(bare, "status")
        assert done.returncode == ExitCode.ENVIRONMENT
        assert "not enough disk space" in done.stderr and "20 MiB are free" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (bare / ".kit" / "venv").exists()


def test_modules_of_the_callers_folder_do_not_shadow_ours(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "kit.py").write_text("raise SystemExit('shadowed')")
    done = subprocess.run([ROOT / "kit", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "exit codes:" in done.stdout


def test_kit_works_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "paddleocr-vl").symlink_to(ROOT / "kit")
    done = subprocess.run([tmp_path / "paddleocr-vl", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "exit codes:" in done.stdout
