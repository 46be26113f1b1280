"""Sends documents with a set number of requests in flight, and judges each reply."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx

from kit import api
from kit.bench.figures import Reply
from kit.bench.workload import Load
from kit.errors import KitError

# Bodies are counted as they are: a service that can compress is not told apart from one whose replies are small.
HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}

NO_CONNECTION = "no connection"


async def drive(
    url: str,
    loads: Iterable[Load],
    clients: int,
    timeout: float,
    add: Callable[[Reply], None],
    headers: Mapping[str, str] | None = None,
) -> None:
    """Each of `clients` clients sends the next load as soon as its last one is answered, until all are sent.

    timeout: seconds for a reply. add: gets each reply as it comes, so that an interrupted run keeps what it has.
    Never raises for what the service does: that is an error in a Reply.
    """
    left = iter(loads)

    async def client(http: httpx.AsyncClient) -> None:
        for load in left:
            add(await send(http, url, load, timeout))

    async with api.async_client(url, timeout, clients) as http:
        http.headers.update(HEADERS | dict(headers or {}))
        await asyncio.gather(*(client(http) for _ in range(clients)))


async def send(http: httpx.AsyncClient, url: str, load: Load, timeout: float) -> Reply:
    """One request, from before it is sent until the whole reply is there; judging it takes no part in the time."""
    began = time.perf_counter()
    received = 0
    try:
        reply = await asyncio.wait_for(http.post(url + api.PATH, content=load.body), timeout)
        ended, received = time.perf_counter(), len(reply.content)
        error = flaw(load, url, reply)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        ended, error = time.perf_counter(), NO_CONNECTION
    except (asyncio.TimeoutError, httpx.TimeoutException):
        ended, error = time.perf_counter(), f"no reply within {timeout:g} s"
    except httpx.HTTPError:
        ended, error = time.perf_counter(), "connection broken off"
    return Reply(began, ended, load.pages, len(load.body), received, error)


def flaw(load: Load, url: str, reply: httpx.Response) -> str:
    """Why this is no whole reply, in few words; "" for one that is. Every page of the workload has text."""
    try:
        pages = api.result_of(url, reply)["layoutParsingResults"]
        texts = [page["markdown"]["text"].strip() for page in pages]
    except api.Unread:
        return "no text in any block"
    except api.ServiceError as error:
        return "HTTP 200, but no result" if error.status == 200 else f"HTTP {error.status}{_words(reply)}"
    except (KeyError, TypeError, AttributeError):
        return "a page without Markdown"
    if len(texts) != load.pages:
        return f"{len(texts)} of {load.pages} page{'s' if load.pages > 1 else ''}"
    return "" if all(texts) else "a page without text"


def _words(reply: httpx.Response) -> str:
    """The service's own words, shortened, so that equal errors are counted as one kind."""
    try:
        words: Any = reply.json()["errorMsg"]
    except (ValueError, KeyError, TypeError):
        return ""
    text = " ".join(str(words).split())
    return f": {text[:59]}…" if len(text) > 60 else f": {text}" if text else ""


async def warm_up(url: str, load: Load, times: int, timeout: float, headers: Mapping[str, str] | None = None) -> None:
    """Send `load` so often at once, uncounted: models load lazily, connections and caches fill.

    Raises KitError, as api.layout_parsing does, when one of them is no whole reply: nothing could be measured.
    """
    replies: list[Reply] = []
    await drive(url, [load] * times, times, timeout, replies.append, headers)
    bad = next((reply.error for reply in replies if reply.error), None)
    if bad is None:
        return
    if bad == NO_CONNECTION:
        raise api.unreachable(url)
    raise KitError(f"{url} does not parse a page: {bad}", "./kit parse samples/invoice.png --url … says more")
