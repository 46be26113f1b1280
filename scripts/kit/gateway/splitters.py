"""The child processes that read what strangers send: asked from the event loop, killed when they take too long."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any, Protocol

from kit.gateway.causes import Refusal
from kit.gateway.split import Kind

SECONDS = 30.0  # for one operation; a PDF that has to be mended may take a while
MOST_HEAD, MOST_DATA = 2**20, 2**30  # bytes of an answer: a child that was taken over must not fill its parent's memory
_CHILD = "from kit.gateway import split; split.main()"
_DIED = "the document cannot be read: its reader ended; it is damaged, or made to do harm"
_LATE = f"the document cannot be read: its reader took more than {SECONDS:.0f} s"
_TOKENS = itertools.count()
_SCRIPTS = str(Path(__file__).resolve().parents[2])  # where `kit` is: a child does not inherit sys.path


class Source(Protocol):
    """What holds a document: the gateway's Spool, or a file of the client's."""

    def source(self) -> bytes | str:
        """Its bytes, or the path of the file that holds them."""


class Splitters:
    """A few children; a document stays with one, which keeps it open."""

    def __init__(self, count: int = 2) -> None:
        self._children = [_Child() for _ in range(count)]

    async def start(self) -> None:
        await asyncio.gather(*(child.start() for child in self._children))

    async def stop(self) -> None:
        await asyncio.gather(*(child.stop() for child in self._children))

    async def open(self, spool: Source, max_pages: int) -> Document:
        """Raises Refusal when it is no document that the service reads."""
        child = min(self._children, key=lambda one: one.waiting)
        kind, _ = await child.ask("look", "", (spool.source(), max_pages))
        return Document(child, spool, Kind(**kind))


class Document:
    """A readable document. kind: what it is. token: no other's, what a child keeps open under it is never another document."""

    def __init__(self, child: _Child, spool: Source, kind: Kind) -> None:
        self._child = child
        self._spool = spool
        self.kind = kind
        self.token = str(next(_TOKENS))
        self._cut = False

    async def cut(self, first: int, last: int) -> tuple[bytes, int]:
        """Pages first … last (from 0, last included) and their fileType. Raises Refusal."""
        self._cut = True
        file_type, data = await self._child.ask("cut", self.token, (self._spool.source(), self.kind, first, last))
        return data, file_type

    async def cut_to(self, first: int, last: int, path: str) -> int:
        """As `cut`, into a file that the child writes: these bytes are never in this process. The fileType.

        Raises Refusal, and OSError when the file cannot be written.
        """
        self._cut = True
        answer, _ = await self._child.ask("cut_to", self.token, (path, self._spool.source(), self.kind, first, last))
        if isinstance(answer, list):
            raise OSError(*answer, path)
        return int(answer)

    async def why_not(self) -> str:
        """Why the API may have refused it; empty where nothing is wrong with it."""
        why, _ = await self._child.ask("why_not", "", (self._spool.source(),))
        return str(why)

    async def close(self) -> None:
        if self._cut:
            with contextlib.suppress(Refusal):
                await self._child.ask("close", self.token, ())


class _Child:
    def __init__(self) -> None:
        self.waiting = 0
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _CHILD),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # Whoever takes a child over is to find no key of the gateway's there.
            env={k: v for k, v in os.environ.items() if not k.startswith("GATEWAY_")} | {"PYTHONPATH": _SCRIPTS},
        )

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def ask(self, operation: str, token: str, arguments: tuple[Any, ...]) -> tuple[Any, bytes]:
        """What the child answers, and the data with it. Raises Refusal."""
        self.waiting += 1
        try:
            await self._lock.acquire()
            # The next one must not get the answer to this question, however often this caller is cancelled: the
            # exchange is finished without him, and the lock is its own.
            exchange = asyncio.create_task(self._exchange(operation, token, arguments))
            exchange.add_done_callback(lambda _: self._lock.release())
            (result, error), data = await asyncio.shield(exchange)
        finally:
            self.waiting -= 1
        if error is not None:
            raise Refusal(*error)
        return result, data

    async def _exchange(self, operation: str, token: str, arguments: tuple[Any, ...]) -> tuple[Any, bytes]:
        if self._process is None or self._process.returncode is not None:
            await self.start()
        assert self._process is not None
        try:
            return await asyncio.wait_for(self._talk(self._process, pickle.dumps((operation, token, arguments))), SECONDS)
        except (asyncio.TimeoutError, EOFError, ConnectionError, ValueError) as error:
            late = isinstance(error, asyncio.TimeoutError)
            await self.stop()
            raise Refusal("corrupt", _LATE if late else _DIED) from None

    @staticmethod
    async def _talk(process: asyncio.subprocess.Process, question: bytes) -> tuple[Any, bytes]:
        assert process.stdin and process.stdout
        process.stdin.write(len(question).to_bytes(8, "big") + question)
        await process.stdin.drain()
        sizes = await process.stdout.readexactly(16)
        head, data = int.from_bytes(sizes[:8], "big"), int.from_bytes(sizes[8:], "big")
        if head > MOST_HEAD or data > MOST_DATA:
            raise ValueError("an answer of this size is none of ours")
        return json.loads(await process.stdout.readexactly(head)), await process.stdout.readexactly(data)
