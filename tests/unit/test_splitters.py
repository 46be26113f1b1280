"""The children that cut documents, asked by callers who leave, and told to write where they cannot."""

from __future__ import annotations

import asyncio
import errno
from dataclasses import dataclass
from pathlib import Path

import pypdfium2
import pytest
from gateway_stack import make_pdf
from kit.gateway.splitters import Splitters


@dataclass
class Held:
    """A document of so many pages."""

    pages: int

    def source(self) -> bytes:
        return make_pdf([f"page {number}" for number in range(1, self.pages + 1)])


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
