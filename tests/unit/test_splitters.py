"""The children that cut documents, asked by callers who leave, and told to write where they cannot."""

from __future__ import annotations

import asyncio
import errno
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
import pytest
from gateway_stack import make_pdf
from kit.gateway import split, splitters
from kit.gateway.causes import Refusal
from kit.gateway.splitters import Splitters


@dataclass
class Held:
    """A document of so many pages. size: of each, in points."""

    pages: int
    size: tuple[int, int] = (500, 200)

    def source(self) -> bytes:
        return make_pdf([f"page {number}" for number in range(1, self.pages + 1)], self.size)


def test_whoever_asks_gets_his_own_answer_even_after_one_who_was_cancelled_twice() -> None:
    async def ask() -> list[int]:
        splitters = Splitters(1)
        await splitters.start()
        try:
            leaving = asyncio.create_task(splitters.open(Held(7), 100))
            for _ in range(5):  # until the question is on its way; the child has not even been loaded
                await asyncio.sleep(0)
            for _ in range(2):
                leaving.cancel()
                await asyncio.sleep(0)
            documents = [await splitters.open(Held(pages), 100) for pages in (2, 3)]
            assert (await asyncio.gather(leaving, return_exceptions=True))[0].__class__ is asyncio.CancelledError
            return [document.kind.pages for document in documents]
        finally:
            await splitters.stop()

    assert asyncio.run(ask()) == [2, 3]


def test_pages_are_written_by_the_child_and_a_full_disk_is_no_fault_of_the_document(tmp_path: Path) -> None:
    async def cut() -> int:
        splitters = Splitters(1)
        try:
            document = await splitters.open(Held(5), 100)
            file_type = await document.cut_to(1, 3, str(tmp_path / "part"))
            for path, number in ((tmp_path / "no" / "part", errno.ENOENT), (Path("/dev/full"), errno.ENOSPC)):
                with pytest.raises(OSError) as caught:
                    await document.cut_to(1, 3, str(path))
                assert caught.value.errno == number and caught.value.filename == str(path) and caught.value.strerror
            return file_type
        finally:
            await splitters.stop()

    assert asyncio.run(cut()) == 0
    pdf = pypdfium2.PdfDocument(tmp_path / "part")
    assert [page.get_textpage().get_text_range() for page in pdf] == ["page 2", "page 3", "page 4"]
    pdf.close()


@pytest.mark.parametrize(
    ("size", "at_once"), [((595, 842), 89), ((2384, 3370), 5), ((14400, 14400), 1), ((100_000, 100_000), 1), ((1, 1), 44_739_242)]
)
def test_large_pages_are_read_in_shorter_ranges(size: tuple[int, int], at_once: int) -> None:
    """All pages of a call are rendered before the first one is read: A4, A0, and what PaddleX makes 537 MB of."""
    assert split.look(Held(3, size).source(), 100).at_once == at_once


def test_a_page_that_paddlex_would_not_render_is_refused() -> None:
    with pytest.raises(split.Unusable, match=r"page 1 has 200000 × 200000 points") as caught:
        split.look(Held(2, (200_000, 200_000)).source(), 100)
    assert caught.value.cause == "too-many-pixels"


def picture_of(side: int) -> bytes:
    """A PNG that claims to be so large; no pixel of it exists."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@dataclass
class Bytes:
    data: bytes

    def source(self) -> bytes:
        return self.data


CHILD = "from kit.gateway import split, splitters; import os, signal, time\n%s\nsplit.main()"


@pytest.mark.parametrize(
    ("child", "said"),
    [
        ("split.look = lambda *_: os.kill(os.getpid(), signal.SIGSEGV)", "its reader ended"),
        ("split.look = lambda *_: time.sleep(60)", "took more than"),
        ("split.answered = lambda *_: b'x' * 16", "its reader ended"),
        ("split.answered = lambda *_: (2).to_bytes(8, 'big') + (2**40).to_bytes(8, 'big') + b'{}'", "its reader ended"),
        ("split.look = lambda *_: b'x' * 2**40", "more memory than it may"),
    ],
)
def test_a_child_that_crashes_hangs_or_lies_is_replaced_and_the_next_document_is_read(
    monkeypatch: pytest.MonkeyPatch, child: str, said: str
) -> None:
    async def ask() -> int:
        children = Splitters(1)
        try:
            with monkeypatch.context() as patched:
                patched.setattr(splitters, "_CHILD", CHILD % child)
                if "sleep" in child:
                    patched.setattr(splitters, "SECONDS", 2.0)
                with pytest.raises(Refusal, match=said) as caught:
                    await children.open(Held(1), 100)
            assert caught.value.cause.name == "corrupt"
            if "memory" in said:  # it lives, and goes on as it was made
                return 2
            return (await children.open(Held(2), 100)).kind.pages
        finally:
            await children.stop()

    assert asyncio.run(ask()) == 2


def test_a_picture_that_takes_more_memory_than_a_child_may_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitters, "_CHILD", CHILD % "split._MEMORY = 2**29")

    async def ask() -> tuple[str, int]:
        children = Splitters(1)
        try:
            document = await children.open(Bytes(picture_of(13_000)), 100)
            with pytest.raises(Refusal) as caught:
                await document.why_not()
            return caught.value.sentence, (await children.open(Held(2), 100)).kind.pages
        finally:
            await children.stop()

    assert asyncio.run(ask()) == ("the document takes more memory than it may", 2)


def test_a_child_knows_no_key_of_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_API_KEYS", "secret-0123456789abcdef")
    monkeypatch.setattr(splitters, "_CHILD", CHILD % "split.look = lambda *_: split.Kind(0, 1, str(sorted(os.environ)))")

    async def ask() -> str:
        children = Splitters(1)
        try:
            return (await children.open(Held(1), 100)).kind.name
        finally:
            await children.stop()

    names = asyncio.run(ask())
    assert "PYTHONPATH" in names and "GATEWAY_" not in names
