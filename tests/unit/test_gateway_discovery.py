"""Replicas follow the addresses of a name."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from typing import Any

import pytest
from kit.gateway import watching
from kit.gateway.discovery import Discovery

A, B, C = (f"http://10.0.0.{number}:8080" for number in (1, 2, 3))


@dataclass(eq=False)
class FakeReplica:
    url: str
    busy: int = 0
    is_up: bool = True
    watched: bool = False

    @property
    def name(self) -> str:
        return self.url

    async def watch(self) -> None:
        self.watched = True
        try:
            await asyncio.Event().wait()
        finally:
            self.watched = False


@dataclass
class FakePool:
    replicas: list[Any] = field(default_factory=list)
    woken: int = 0

    def wake(self) -> None:
        self.woken += 1

    @property
    def urls(self) -> list[str]:
        return [replica.url for replica in self.replicas]


class Scene:
    """A discovery whose name has the addresses that a test gives it; None: it cannot be looked up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pool = FakePool()
        self.addresses: list[tuple[socket.AddressFamily, str]] | None = []
        self.made: list[FakeReplica] = []
        self.discovery = Discovery("http://api:8080", self.pool, self.make, 5.0)  # type: ignore[arg-type]
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", self.getaddrinfo)

    def make(self, url: str) -> Any:
        self.made.append(FakeReplica(url))
        return self.made[-1]

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        assert (host, port) == ("api", 8080)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(family, socket.SOCK_STREAM, 6, "", (address, port)) for family, address in self.addresses]

    async def look(self, *last: int) -> None:
        self.addresses = [(socket.AF_INET, f"10.0.0.{number}") for number in last]
        await self.discovery.look()
        await asyncio.sleep(0)  # watches begin, and end


def play(monkeypatch: pytest.MonkeyPatch, story: Any) -> None:
    async def scene() -> None:
        await story(Scene(monkeypatch))

    asyncio.run(scene())


def test_what_is_new_is_added_and_watched_and_what_has_gone_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        await scene.look(1, 2)
        assert scene.pool.urls == [A, B] and all(replica.watched for replica in scene.made)
        await scene.look(2, 3)
        assert scene.pool.urls == [B, C]
        assert [replica.watched for replica in scene.made] == [False, True, True]
        assert scene.pool.woken == 2

    play(monkeypatch, story)


def test_one_that_has_left_is_watched_until_its_calls_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        await scene.look(1, 2)
        first = scene.made[0]
        first.busy = 1
        await scene.look(2)
        assert scene.pool.urls == [B] and first.watched, "it gets nothing new, and its call goes on"
        first.busy = 0
        await scene.look(2)
        assert not first.watched

    play(monkeypatch, story)


def test_one_that_has_left_and_is_silent_is_dropped_with_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        await scene.look(1)
        (first,) = scene.made
        first.busy = 1
        await scene.look(2)
        first.is_up = False  # its watch has taken it out, which gave its calls back
        await scene.look(2)
        assert not first.watched

    play(monkeypatch, story)


def test_one_that_comes_back_with_open_calls_is_still_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        await scene.look(1)
        (first,) = scene.made
        first.busy = 1
        await scene.look(2)
        await scene.look(1, 2)
        assert len(scene.made) == 2 and first in scene.pool.replicas and first.watched
        first.busy = 0
        await scene.look(2)
        await scene.look(1, 2)
        assert len(scene.made) == 3, "after its calls it is a new one, which has to prove itself"

    play(monkeypatch, story)


def test_a_name_that_cannot_be_looked_up_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        await scene.look(1, 2)
        await scene.look()
        assert scene.pool.urls == [A, B] and all(replica.watched for replica in scene.made)

    play(monkeypatch, story)


def test_what_goes_on_for_ever_begins_anew_after_a_fault(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "_PAUSE", 0.0)

    async def story(scene: Scene) -> None:
        follow, faults = scene.discovery.follow, iter([True, False])
        monkeypatch.setattr(scene.discovery, "follow", lambda addresses: 1 / 0 if next(faults, False) else follow(addresses))
        scene.addresses = [(socket.AF_INET, "10.0.0.1")]
        watch = asyncio.create_task(scene.discovery.watch())
        while not (scene.made and scene.made[0].watched):
            await asyncio.sleep(0)
        assert scene.pool.urls == [A] and "begins anew" in caplog.text
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        assert not scene.made[0].watched

    play(monkeypatch, story)


def test_a_replica_with_both_kinds_of_address_is_one_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(scene: Scene) -> None:
        scene.addresses = [(socket.AF_INET6, "fd00::1"), (socket.AF_INET, "10.0.0.1")]
        await scene.discovery.look()
        assert scene.pool.urls == [A]
        scene.addresses = [(socket.AF_INET6, "fd00::1")]
        await scene.discovery.look()
        assert scene.pool.urls == ["http://[fd00::1]:8080"]

    play(monkeypatch, story)
