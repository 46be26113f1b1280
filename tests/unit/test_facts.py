"""What is told of a machine that has nothing: no exception, a reason in words."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from kit.facts import docker, ports
from support import free_port


def fake_docker(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (folder / "docker").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = docker.docker()
    assert not found.usable and "not installed" in found.problem


def test_a_daemon_that_is_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "echo 'Cannot connect to the Docker daemon at unix:///x.' >&2; exit 1")
    found = docker.docker()
    assert not found.usable and found.problem.startswith("Cannot connect to the Docker daemon")


def test_a_daemon_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "TIMEOUT", 0.3)
    fake_docker(tmp_path, monkeypatch, "exec sleep 60")
    found = docker.docker()
    assert not found.usable and "did not answer within" in found.problem


def test_docker_without_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(
        tmp_path, monkeypatch, "[ $1 = version ] && echo '\"28.5.2\"' && exit; echo 'unknown command: docker compose' >&2; exit 1"
    )
    found = docker.docker()
    assert (found.engine, found.usable) == ("28.5.2", False) and "unknown command" in found.problem


def test_docker_with_compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_docker(tmp_path, monkeypatch, "[ $1 = version ] && echo '\"28.5.2\"' || echo v2.40.3")
    assert docker.docker() == docker.Docker("28.5.2", "2.40.3")


def test_a_held_port_and_a_free_one() -> None:
    port = free_port()
    assert ports.is_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not ports.is_free("127.0.0.1", port)
        assert not ports.is_free("0.0.0.0", port)
        assert "python" in str(ports.holder(port)) or "pytest" in str(ports.holder(port))
    assert ports.is_free("127.0.0.1", port)
    assert "another user" in str(ports.holder(port))
