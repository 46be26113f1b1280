"""Documents from URLs, to files: the client fetches them, the service never does."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx

from kit import api
from kit.client.failures import Unusable, seconds_of
from kit.client.retry import SAME, Backoff

LARGEST = 2 * 2**30  # bytes
SECONDS = 600.0  # for one document
_REDIRECTS = 5


class _Again(Exception):
    def __init__(self, cause: str, retry_after: float | None = None) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


async def fetch(url: str, shown: str, target: Path, backoff: Backoff) -> None:
    """Write what is at `url` to `target`, aside first. Tries again where that may help. shown: the address without secrets.

    Raises Unusable, OSError.
    """
    failures = 0
    while True:
        try:
            return await asyncio.wait_for(_once(url, shown, target), SECONDS)
        except (_Again, httpx.HTTPError, asyncio.TimeoutError, TimeoutError) as error:
            failures += 1
            if failures >= SAME or backoff.never:
                cause = str(error) if isinstance(error, _Again) else f"the URL cannot be fetched ({type(error).__name__})"
                raise Unusable(shown, "url", cause, "check the address, and HTTPS_PROXY where there is one") from None
            asked = error.retry_after if isinstance(error, _Again) else None
            await asyncio.sleep(backoff.pause(failures, random.random(), asked))
        except (httpx.InvalidURL, ValueError):  # its words may hold a password
            raise Unusable(shown, "url", "this is no address", "such as https://example.org/paper.pdf") from None


async def _once(url: str, shown: str, target: Path) -> None:
    aside = target.with_name(target.name + ".partial")
    async with api.async_client(url, SECONDS, 1) as http:
        http.follow_redirects, http.max_redirects = True, _REDIRECTS
        async with http.stream("GET", url) as reply:
            if reply.status_code in (408, 425, 429) or reply.status_code >= 500:
                raise _Again(f"the URL answers HTTP {reply.status_code}", seconds_of(reply.headers.get("Retry-After")))
            if reply.status_code != 200:
                raise Unusable(shown, "url", f"the URL answers HTTP {reply.status_code}", "check the address")
            with aside.open("wb") as file:
                async for piece in reply.aiter_bytes():
                    file.write(piece)
                    if file.tell() > LARGEST:
                        why = "what is at the URL is larger than 2 GiB"
                        raise Unusable(shown, "url", why, "download it, and cut it in parts")
    aside.replace(target)
