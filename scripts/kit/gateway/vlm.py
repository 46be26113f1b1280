"""Whether the VLM server answers: asked now and then, and at once when a replica reports a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

LATE_TRIES = 3


class Vlm:
    """up: None where no address is given; then nothing is known of it and it counts as up."""

    def __init__(self, url: str | None, session: aiohttp.ClientSession, seconds: float, changed: Callable[[], None]) -> None:
        """url: with or without /v1. seconds: for an answer, and between two looks. changed: called after each change."""
        self.url = url.removesuffix("/v1") if url else None
        self.up: bool | None = None
        self.reason = "not asked yet" if url else ""
        self._session = session
        self._seconds = seconds
        self._changed = changed
        self._looking: asyncio.Task[None] | None = None
        self._late = 0  # looks in a row that got no answer in time: a busy server is not a dead one

    @property
    def is_down(self) -> bool:
        return self.up is False

    async def check(self) -> bool:
        """Ask now, together with all who do; True when it answers or is not known."""
        if self.url is None:
            return True
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)
        return not self.is_down

    async def watch(self) -> None:
        while self.url is not None:
            await self.check()
            await asyncio.sleep(self._seconds if self.up else min(self._seconds, 1.0))

    async def _look(self) -> None:
        before = self.up
        try:
            # vLLM answers 200 as long as its engine lives, SGLang, llama.cpp and FastDeploy too.
            timeout = aiohttp.ClientTimeout(total=self._seconds)
            async with self._session.get(f"{self.url}/health", timeout=timeout, allow_redirects=False) as reply:
                self.up, self._late = reply.status < 500, 0
                self.reason = "" if self.up else f"/health answers {reply.status}"
        except asyncio.TimeoutError:
            self._late += 1
            if self._late >= LATE_TRIES:
                self.up, self.reason = False, f"{self._late} times no answer in {self._seconds:g} s"
        except (aiohttp.ClientError, OSError):
            self.up, self.reason = False, "it takes no connection"
        if self.up != before:
            self._changed()
