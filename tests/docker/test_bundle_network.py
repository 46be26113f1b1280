"""The witnesses of the offline tests themselves: they see a way out where there is one, and an attempt where one is made."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_image import make_base_image
from engine import Engine, EngineUnavailable
from support import skip
from witness import Sealed, peers, sealed_engine, traced, ways_out

current = pytest.mark.parametrize("engine", ["current"], indirect=True)

TRY = """
import socket, sys
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    with socket.socket(socket.AF_INET, kind) as s:
        try:
            s.connect(("192.0.2.1", 443)) if kind == socket.SOCK_STREAM else s.sendto(b"", ("192.0.2.2", 123))
        except OSError as error:
            print(error.errno)
"""


@pytest.fixture(scope="module")
def sealed() -> Iterator[Sealed]:
    try:
        context = sealed_engine("current")
        running = context.__enter__()
    except EngineUnavailable as error:
        skip(str(error))
    try:
        yield running
    finally:
        context.__exit__(None, None, None)


def test_a_sealed_engine_has_no_way_out_and_still_runs_containers(sealed: Sealed) -> None:
    image = make_base_image(sealed.engine)
    assert ways_out(sealed.engine, image) == []
    assert sealed.engine.docker("run", "--rm", image, "echo", "lives") == "lives\n"


@current
def test_the_same_look_finds_the_ways_of_a_plain_engine(engine: Engine) -> None:
    found = ways_out(engine, make_base_image(engine))
    assert {"link eth0", "connection from the engine", "connection from the container"} <= set(found)
    assert any(way.startswith("route default via") for way in found)


def test_a_registry_that_the_engine_asks_is_recorded(sealed: Sealed) -> None:
    before = sealed.asked()
    sealed.engine.docker("pull", "registry.invalid/some/image:1", check=False)
    assert "CONNECT registry.invalid:443 HTTP/1.1" in sealed.asked()[len(before) :]


def test_attempts_of_a_program_and_of_its_children_are_seen_though_they_fail(sealed: Sealed, tmp_path: Path) -> None:
    child = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TRY!r}])"]
    seen = sealed.run(*child, log=tmp_path / "calls", environment=dict(os.environ), cwd=tmp_path)
    assert seen.done.stdout == "101\n101\n", "network is unreachable"
    assert seen.peers == ["192.0.2.1:443", "192.0.2.2:123"]


def test_a_question_for_a_name_is_seen(sealed: Sealed, tmp_path: Path) -> None:
    ask = "import socket; socket.getaddrinfo('pypi.org', 443)"
    seen = sealed.run(sys.executable, "-c", ask, log=tmp_path / "calls", environment=dict(os.environ), cwd=tmp_path)
    assert seen.done.returncode == 1 and seen.peers and all(peer.endswith(":53") for peer in seen.peers)


def test_docker_itself_calls_nobody_outside(sealed: Sealed, tmp_path: Path) -> None:
    seen = sealed.run("docker", "version", log=tmp_path / "calls", environment=sealed.engine.environment, cwd=tmp_path)
    assert seen.done.returncode == 0 and seen.peers == []


def test_a_program_that_calls_nobody_is_told_from_one_that_nobody_watched(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    os.spawnvp(os.P_WAIT, "strace", [*traced(log), "true"])
    assert peers(log) == []
    log.write_text("")
    with pytest.raises(AssertionError, match="saw no program start"):
        peers(log)


def test_the_words_of_strace_are_understood(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    log.write_text(
        '7 execve("/bin/x", ["x"], 0x7ffc /* 9 vars */) = 0\n'
        '7 connect(3, {sa_family=AF_UNIX, sun_path="/x"}, 9) = 0\n'
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(8080), sin_addr=inet_addr("127.0.0.1")}, 16) = 0\n'
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0\n'
        '7 connect(3, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1",'
        " &sin6_addr), sin6_scope_id=0}, 28 <unfinished ...>\n"
        '7 connect(3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "::ffff:127.0.0.1",'
        " &sin6_addr), sin6_scope_id=0}, 28) = 0\n"
    )
    assert peers(log) == ["127.0.0.53:53", "2001:db8::1:443"]
