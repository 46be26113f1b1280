"""Replicas that come and go behind one name: it has an address for each, in Docker's DNS as in that of a headless service.

A new address becomes a replica, which has to prove itself like any other. One that the name no longer has gets nothing new,
and is dropped when its calls have come to an end. A name that cannot be looked up tells nothing: whoever answers stays.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kit.gateway.watching import kept_up

if TYPE_CHECKING:
    from kit.gateway.dispatch import Pool
    from kit.gateway.replica import Replica

LOG = logging.getLogger("kit.gateway")

_SOON = 1.0  # seconds between two look-ups while the name has no address


class Discovery:
    """Keeps the pool's replicas those of one name."""

    def __init__(self, url: str, pool: Pool, make: Callable[[str], Replica], seconds: float) -> None:
        """url: http://NAME:PORT. make: a replica for an address. seconds: between two look-ups."""
        parts = urlsplit(url)
        self.name, self._port = parts.hostname or "", parts.port or 80
        self._pool, self._make, self._seconds = pool, make, seconds
        self._here: dict[str, Replica] = {}
        self._leaving: dict[str, Replica] = {}
        self._watches: dict[Replica, asyncio.Task[None]] = {}
        self._said = ""

    async def watch(self) -> None:
        """For ever; the watches of the replicas end with it."""
        try:
            while True:
                # A fault in it is seen to here: its end would be that of all watches.
                await kept_up(self.look)
                await asyncio.sleep(self._seconds if self._here else min(self._seconds, _SOON))
        finally:
            for watch in self._watches.values():
                watch.cancel()
            await asyncio.gather(*self._watches.values(), return_exceptions=True)

    async def look(self) -> None:
        """Look the name up once and follow it."""
        try:
            addresses = await self._addresses()
        except OSError as error:
            self._say(f"{self.name} cannot be looked up: {error.strerror or error}")
        else:
            self._say("")
            self.follow(addresses)
        self._drop()

    def follow(self, addresses: set[str]) -> None:
        """Make the replicas those of `addresses`: http://ADDRESS:PORT."""
        for url in sorted(self._here.keys() - addresses):
            replica = self._leaving[url] = self._here.pop(url)
            LOG.info("replica %s has left %s; %d calls are open", replica.name, self.name, replica.busy)
            self._pool.replicas.remove(replica)
        for url in sorted(addresses - self._here.keys()):
            # One that is back before its calls have ended is the same one: it is not to get more than its share.
            replica = self._here[url] = self._leaving.pop(url, None) or self._make(url)
            LOG.info("replica %s is new at %s", replica.name, self.name)
            self._pool.replicas.append(replica)
            if replica not in self._watches:
                self._watches[replica] = asyncio.create_task(kept_up(replica.watch))
        self._pool.wake()

    def _drop(self) -> None:
        """Those that left: until the last call ends they are still watched, so that a silent one gives its calls back."""
        for url, replica in list(self._leaving.items()):
            if not replica.busy or not replica.is_up:
                del self._leaving[url]
                self._watches.pop(replica).cancel()

    async def _addresses(self) -> set[str]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.name, self._port, type=socket.SOCK_STREAM)
        # Of a replica with both kinds of address one is enough; with both it would be counted twice.
        family = min(entry[0] for entry in found)
        hosts = {entry[4][0] for entry in found if entry[0] == family}
        return {f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}" for host in hosts}

    def _say(self, problem: str) -> None:
        if problem and problem != self._said:
            LOG.warning("%s", problem)
        self._said = problem
