"""One request as it comes in: who asks, how far it is, and whether anybody still waits for its answer."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from kit.gateway.causes import Refusal
from kit.gateway.parse import Answer

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


@dataclass(eq=False)
class Exchange:
    """One request. read: its body has come whole. log_id: the client's, once it is known to be sound."""

    path: str
    method: str
    headers: Mapping[bytes, bytes]
    receive: Receive
    peer: str
    log_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    read: bool = False
    begun: float = field(default_factory=time.monotonic)
    client: str = ""  # who asks, once it is let in
    work: asyncio.Task[Answer] | None = None  # once it is let in
    refused: Refusal | None = None  # set by who cancels `work`
    pages: int = 0

    async def unless_left(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do `work`; break off with ClientLeft when the client goes away, which frees its places."""
        task = asyncio.create_task(work)
        left = asyncio.create_task(self._left())
        used = False
        try:
            await asyncio.wait({task, left}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ClientLeft
            used = True
            return task.result()
        finally:
            for one in (task, left):
                one.cancel()
            await asyncio.gather(task, left, return_exceptions=True)
            if not used:
                close_unused(task)

    async def _left(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def discard(self, most: int, seconds: float) -> None:
        """Read on what a client is still sending that has been refused: so many bytes, for so long."""
        end, total = time.monotonic() + seconds, 0
        while total <= most and (left := end - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(self.receive(), min(2.0, left))
            except asyncio.TimeoutError:
                return
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                return
            total += len(message.get("body", b""))


def close_unused(work: asyncio.Task[Any]) -> None:
    """Give back what an answer holds that came in the very moment in which it was broken off."""
    if work.done() and not work.cancelled() and work.exception() is None and isinstance(work.result(), Answer):
        work.result().close()
