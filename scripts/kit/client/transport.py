"""One request over HTTP: the file goes out as it is read, the reply comes in to a file; every failure has its type."""

from __future__ import annotations

import asyncio
import base64
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx

from kit import api
from kit.api import ServiceError
from kit.client import failures, results
from kit.client.failures import BadReply, NoService, WrongPages
from kit.client.results import Page
from kit.gateway import join
from kit.gateway.join import ReadPage, unread_pages
from kit.reply import contents

T = TypeVar("T")

RESTRUCTURE = "/restructure-pages"
# What is sent where the caller says nothing else: pictures of the pages are 97 % of a default reply (docs/performance.md).
DEFAULTS: dict[str, Any] = {"visualize": False}
BASE_SECONDS, SECONDS_PER_PAGE = 60.0, 30.0  # for an answer, where the user gives no limit: a slow CPU reads a page in 30 s

_PIECE = 3 * 2**16  # bytes that are encoded at once: a multiple of 3
_IN_MEMORY = 2**20  # bytes of a reply; more goes to a file
_MOST_REPLY = 2**30  # bytes; no reply of a range is near it


class Transport:
    """Requests to one service. api_key: sent as Authorization: Bearer. timeout: seconds for an answer; None grows with the
    pages that are in flight, because PaddleX reads one document after the other."""

    def __init__(self, url: str, *, api_key: str = "", timeout: float | None = None, connections: int = 8) -> None:
        self.url = api.address(url)
        self._timeout = timeout
        # The limit of a whole answer is kept by _post; these here are of one read.
        self._http = api.async_client(self.url, timeout or 3600.0, connections)
        if api_key:
            self._http.headers["Authorization"] = f"Bearer {api_key}"
        self._in_flight = 0  # pages

    async def __aenter__(self) -> Transport:
        await self._http.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def parse(
        self, file: Path, file_type: int, numbers: Sequence[int], options: Mapping[str, Any], log_id: str
    ) -> list[Page]:
        """Send a file, whose pages have these numbers in their document. Raises ParseError, OSError."""
        fields = {**DEFAULTS, **options, "fileType": file_type} | ({"logId": log_id} if log_id else {})
        head = json.dumps(fields)[:-1].encode() + b',"file":"'
        size = file.stat().st_size
        length = len(head) + 4 * ((size + 2) // 3) + 2

        async def body() -> AsyncIterator[bytes]:
            yield head
            with file.open("rb") as source:
                while piece := source.read(_PIECE):
                    yield base64.b64encode(piece)
            yield b'"}'

        result = await self._post(api.PATH, body(), length, len(numbers))
        return _checked(result, numbers)

    async def restructure(self, body: Path, pages: int, count: int) -> list[str]:
        """Send a request that lies in a file; the JSON of each page of the reply, which has to have `count` of them.

        pages: those in the request. Raises ParseError (NoService where paddlex is too old for it), OSError.
        """

        async def content() -> AsyncIterator[bytes]:
            with body.open("rb") as source:
                while piece := source.read(_PIECE):
                    yield piece

        def read(reply: bytes) -> list[str]:
            try:
                there = [page.text for page in join.read_reply(reply, count).pages]
                for number, page in enumerate(there, 1):
                    results.page_of(json.loads(page), number)
                return there
            except (join.BadReply, results.NotOfTheContract) as error:
                raise BadReply(f"{RESTRUCTURE}: {error}", status=200) from None

        try:
            return await self._post(RESTRUCTURE, content(), body.stat().st_size, pages, read)
        except NoService as error:
            hint = "paddlex 3.7 has it; without --restructure and docx this one will do, into another folder"
            raise NoService(f"the service has no {RESTRUCTURE}", hint, status=error.status) from None

    async def _post(
        self, path: str, body: AsyncIterator[bytes], length: int, pages: int, read: Callable[[bytes], T] | None = None
    ) -> Any:
        self._in_flight += pages
        limit = self._timeout or BASE_SECONDS + SECONDS_PER_PAGE * self._in_flight
        try:
            return await asyncio.wait_for(self._exchange(path, body, length, read), limit)
        except (asyncio.TimeoutError, TimeoutError):
            raise failures.timed_out() from None
        except httpx.HTTPError as error:
            raise failures.of_transport(error, self.url) from error
        finally:
            self._in_flight -= pages

    async def _exchange(self, path: str, body: AsyncIterator[bytes], length: int, read: Callable[[bytes], T] | None) -> Any:
        headers = {"Content-Type": "application/json", "Content-Length": str(length)}
        async with self._http.stream("POST", self.url + path, content=body, headers=headers) as reply:
            with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
                async for piece in reply.aiter_bytes():
                    file.write(piece)
                    if file.tell() > _MOST_REPLY:
                        raise BadReply("the reply is larger than 1 GiB", status=reply.status_code)
                file.seek(0)
                if read is not None and reply.status_code == 200:
                    return read(file.read())
                return self._result(reply, file.read())

    def _result(self, reply: httpx.Response, content: bytes) -> dict[str, Any]:
        try:
            return api.result_of(self.url, httpx.Response(reply.status_code, content=content))
        except api.Unread as error:
            return error.result  # _checked tells which pages, and whether that is a fault
        except ServiceError as error:
            raise failures.of_reply(error, reply.headers.get("Retry-After")) from None
        except RecursionError:
            raise BadReply("the reply is not of the contract: too deep", status=reply.status_code) from None


def _checked(result: dict[str, Any], numbers: Sequence[int]) -> list[Page]:
    replies = result["layoutParsingResults"]
    if not isinstance(replies, list):
        raise BadReply("the reply is cut off, or not of the contract", status=200)
    if len(replies) != len(numbers):
        raise WrongPages(
            f"the reply has {len(replies)} of {len(numbers)} pages",
            "set max_num_input_imgs: null under Serving.extra in the service's pipeline config, as ours has it",
            status=200,
        )
    try:
        pages = results.pages_of(result, numbers)
    except results.NotOfTheContract as error:
        raise BadReply(f"the reply is not of the contract ({error})", "is the service's version supported?", status=200) from None
    found: list[ReadPage | None] = [_read(page) for page in pages]
    if unread_pages(found):
        unread = failures.of_reply(api.Unread(result))
        if len(pages) == 1 and not unread_pages([_TEXT, *found]):
            unread.page = pages[0]  # type: ignore[attr-defined]
        raise unread
    return pages


# A page with text, to ask what another one would be beside it.
_TEXT = ReadPage("", 1, True)


def _read(page: Page) -> ReadPage:
    texts = contents({"prunedResult": page.pruned})
    return ReadPage("", len(texts), any(texts))

