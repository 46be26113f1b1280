"""The journal, names, inputs: what a run remembers, and what it writes to."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from kit.batch import folder
from kit.batch.inputs import collect, names_on
from kit.batch.journal import Journal, past_of
from kit.batch.names import STATE, Names, safe
from kit.batch.wish import Wish
from kit.client.failures import Unusable
from kit.client.opened import Reader
from kit.errors import ExitCode, KitError


def test_a_journal_that_is_torn_at_any_byte_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path)
    journal.add("run", version=1, settings={})
    journal.add("named", key="/ä\udcff.pdf", name="a")
    journal.add("begun", key="/ä\udcff.pdf", stamp=(3, 4), sha256="x", pages=20, type="pdf", asked=[(1, 20)])
    journal.add("read", key="/ä\udcff.pdf", span=(1, 8), size=7)
    journal.add("lost", key="/ä\udcff.pdf", span=(9, 9), kind="server", cause="HTTP 500", log_id="l")
    journal.close()
    whole = path.read_bytes()
    ends = [0, *itertools.accumulate(len(line) for line in whole.splitlines(keepends=True))]
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        again = Journal.open(path)
        sound = max(end for end in ends if end <= cut)
        assert path.read_bytes() == whole[:sound]
        again.add("named", key="b", name="b")
        again.close()
        lines = path.read_bytes().splitlines()
        assert [json.loads(line) for line in lines[:-1]] == [json.loads(line) for line in whole[:sound].splitlines()]
        assert json.loads(lines[-1]) == {"what": "named", "key": "b", "name": "b"}


def test_what_is_added_is_what_is_read_again(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "j")
    journal.add("begun", key="a", stamp=(3, 4), sha256="x", pages=20, type="pdf", asked=[(1, 20)])
    for what, fields in (
        ("read", {"span": (1, 8), "size": 7}),
        ("read", {"span": (10, 17), "size": 7}),
        ("gone", {"span": (1, 8)}),
        ("lost", {"span": (9, 9), "kind": "server", "cause": "HTTP 500", "log_id": "l"}),
        ("touched", {"stamp": (3, 5)}),
        ("done", {"files": ["a.md"], "lacks": {"docx": ("server", "HTTP 500")}}),
        ("again", {}),
        ("failed", {"stamp": (1, 1), "kind": "corrupt", "cause": "x"}),
        ("done", {}),
    ):
        journal.add(what, key="a", **fields)
        again = Journal.open(tmp_path / "j")
        assert again.past.known == journal.past.known, what
        again.close()
    assert list(journal.past.known["a"].read) == [(10, 17)], "what is gone is read again"
    journal.add("done", key="a", files=["a.md"], lacks={"docx": ("server", "HTTP 500")})
    assert journal.past.known["a"].lacks == {"docx": ("server", "HTTP 500")} and not journal.past.known["a"].is_whole
    journal.add("changed", key="a")
    again = Journal.open(tmp_path / "j")
    assert again.past.known == journal.past.known
    assert again.past.known["a"].stale == ("a.md",) and not again.past.known["a"].read and not again.past.known["a"].done


@pytest.mark.parametrize("damage", [b"nonsense\n", b'{"what":"flown","key":"a"}\n', b"[]\n", b"\xff\xfe\n"])
def test_a_journal_that_is_none_is_not_taken_for_one(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "j").write_bytes(damage + b'{"what":"ended"}\n')
    with pytest.raises(ValueError):
        Journal.open(tmp_path / "j")


def test_what_failed_is_tried_again_only_after_a_run_that_came_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    wish, out = Wish(), tmp_path / "out"
    found = collect([str(tmp_path / "a.pdf")], [], out)
    with folder.opened(out, wish, found, resume=True) as journal:
        journal.add("failed", key=found[0].key, stamp=(0, 0), kind="corrupt", cause="x")
    with folder.opened(out, wish, found, resume=True) as journal:
        assert journal.past.known[found[0].key].done, "it was interrupted: nothing is done twice"
        journal.add("ended")
    with folder.opened(out, wish, found, resume=True) as journal:
        assert not journal.past.known[found[0].key].done
    with folder.opened(out, Wish(max_pages=3), found, resume=False) as journal:
        assert journal.past.known[found[0].key].failed is None
    with pytest.raises(KitError) as caught, folder.opened(out, wish, found, resume=True):
        pass
    assert caught.value.code == ExitCode.USAGE and "max_pages" in caught.value.message and "--no-resume" in caught.value.hint


def test_names_are_kept_whatever_comes_later(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pdf").touch()
    later, first = str(tmp_path / "a" / "x.pdf"), str(tmp_path / "b" / "x.pdf")
    with folder.opened(tmp_path / "out", Wish(), collect([first], [], None), resume=True) as journal:
        assert journal.past.known[first].name == "x"
    with folder.opened(tmp_path / "out", Wish(), collect([later, first], [], None), resume=True) as journal:
        assert (journal.past.known[first].name, journal.past.known[later].name) == ("x", "x-2")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("paper", "paper"),
        ("a/b", "a_b"),
        ("..", "document"),
        (". hidden", "hidden"),
        ("-rf", "_-rf"),
        ("CON", "_CON"),
        ("lpt1.x", "_lpt1.x"),
        ("COM¹", "_COM¹"),
        ("conout$.x", "_conout$.x"),
        ("a\x00b\nc", "a_b_c"),
        ("tail. ", "tail"),
        ("名前", "名前"),
        ("\udcff", "_"),
        ("a\u202egpj", "a_gpj"),
    ],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe(text) == name


def test_long_names_fit_with_what_is_put_behind_them() -> None:
    for text in ("x" * 300, "名" * 300, "e\u0301" * 300):
        assert 100 < len((safe(text) + "-100_images").encode()) <= 255


def test_names_never_collide() -> None:
    names = Names()
    wishes = [
        *(((), "a"), ((), "A"), ((), "a"), ((), "a-2"), ((), "é"), ((), "e\u0301"), ((), "report"), ((), "REPORT")),
        *((("a_images",), "x"), (("a.md",), "x"), ((), "b/c"), (("b",), "c"), (("b",), "C"), ((".kit-parse",), "x")),
        *((("..", ".."), "x"), (("d",), "x"), ((), "d"), ((), "d_images"), ((".kit-parse",), "journal")),
        *((("e_images",), "x"), ((), "e"), (("f.md",), "x"), ((), "f")),
    ]
    given = [names.give(folder, stem) for folder, stem in wishes]
    assert given[:4] == ["a", "A-2", "a-3", "a-2-2"]
    files: set[str] = {"report.json", STATE}
    folders: set[str] = set()
    for name in given:
        assert ".." not in name.split("/") and not name.startswith(("/", "."))
        mine = {f"{name}{end}".casefold() for end in (".md", ".json", ".jsonl", ".docx", ".html", "_images")}
        assert not mine & files, name
        files |= mine
        parts = name.casefold().split("/")[:-1]
        folders |= {"/".join(parts[: i + 1]) for i in range(len(parts))}
    assert not files & folders


def test_names_of_files_that_were_there_before_are_not_given(tmp_path: Path) -> None:
    for name in ("book.md", "sub", "link.json"):
        (tmp_path / name).touch() if name != "link.json" else (tmp_path / name).symlink_to("nowhere")
    for name in ("Paper_images", "mine"):
        (tmp_path / name).mkdir()
    names = Names(tmp_path)
    wishes = [((), "book"), ((), "book"), (("sub",), "x"), ((), "link"), ((), "Paper"), (("mine",), "x")]
    given = [names.give(place, stem) for place, stem in wishes]
    assert given == ["book-2", "book-3", "sub-2/x", "link-2", "Paper-2", "mine/x"]


def test_ten_thousand_documents_of_one_name_and_as_many_of_others() -> None:
    names, began = Names(), time.monotonic()
    given = [names.give((), "scan") for _ in range(10_000)]
    assert given == ["scan", *(f"scan-{number}" for number in range(2, 10_001))]
    assert [names.give(("in",), f"page {number}") for number in range(10_000)] == [f"in/page {n}" for n in range(10_000)]
    assert time.monotonic() - began < 60, "a few seconds; an hour, where each is compared with all before it"


def test_what_no_run_has_written_stays_and_what_a_run_has_written_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").touch()
    (tmp_path / "a.md").write_text("mine")
    found, out = collect([str(tmp_path / "a.pdf")], [], tmp_path), tmp_path
    for resume in (True, False, True):
        with folder.opened(out, Wish(), found, resume=resume) as journal:
            assert journal.past.known[found[0].key].name == "a-2"
            (out / "a-2.md").write_text("of a run")
            (out / "report.json").write_text("of a run")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "report.json").write_text("mine")
    with pytest.raises(KitError) as caught, folder.opened(tmp_path / "else", Wish(), found, resume=False):
        pass
    assert caught.value.code == ExitCode.USAGE and "report.json" in caught.value.message
    assert [path.name for path in (tmp_path / "else").iterdir()] == ["report.json"], "nothing is begun"


@pytest.mark.parametrize(
    ("argument", "output", "shown"),
    [
        ("scans", "scans", ["a.png", "a_images/figure.png", "out/b.png", "sub/c.png"]),
        ("scans", "scans/out", ["a.png", "a_images/figure.png", "sub/c.png"]),
        ("scans", ".", ["a.png", "a_images/figure.png", "out/b.png", "sub/c.png"]),
        ("scans/*.png", "scans", ["a.png"]),
        ("scans/sub/*.png", "scans", ["sub/c.png"]),
        ("scans/**/*.png", "scans/out", ["a.png", "a_images/figure.png", "sub/c.png"]),
        ("scans/**/*.png", "scans", ["a.png", "a_images/figure.png", "out/b.png", "sub/c.png"]),
    ],
)
def test_an_output_in_around_and_at_what_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, output: str, shown: list[str]
) -> None:
    """`a_images` is the user's own; `b_images` is not."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a_images/figure.png", "sub/c.png", "out/b.png"):
        (tmp_path / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "scans" / name).touch()
    out = Path(output)
    for _ in range(2):
        found = collect([argument], [], out, folder.pictures(out))
        assert [one.shown.removeprefix("scans/") for one in found] == shown
        with folder.opened(out, Wish(), found, resume=True) as journal:
            for known in journal.past.known.values():
                (out / f"{known.name}_images").mkdir(parents=True, exist_ok=True)
                (out / f"{known.name}_images" / "p0001.png").touch()


def test_what_leads_nowhere_is_for_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line longer than a name may be, an address that is none, a link in a circle, a folder that may not be read."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "a.pdf").touch()
    (tmp_path / "in" / "loop.pdf").symlink_to("loop.pdf")
    (tmp_path / "loop").symlink_to("loop")
    scandir = os.scandir

    def closed(path: str) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    lines = ["x" * 5000, "http://[bad/x", "in"]
    found = collect(["-", "in/*.pdf", "loop"], lines, tmp_path / "loop")
    assert [one.shown for one in found] == [*lines[:2], "in/a.pdf", "in/loop.pdf", "in/closed", "loop"]
    (unread,) = (one for one in found if one.shown == "in/closed")
    assert unread.path

    async def why(path: Path) -> str:
        with pytest.raises(Unusable) as caught:
            await Reader(tmp_path).open(path)
        return caught.value.cause

    assert asyncio.run(why(unread.path)) == "Permission denied"
    assert asyncio.run(why(Path(lines[0]))) == "File name too long"


def test_no_secret_of_an_address_is_shown() -> None:
    (one,) = collect(["https://me:s3cret@store.example/?X-Amz-Signature=0123abcdef"], [], None)
    assert one.key == "https://me:s3cret@store.example/?X-Amz-Signature=0123abcdef", "it is fetched as it is"
    for text in (one.shown, one.source, one.stem):
        assert "s3cret" not in text and "0123" not in text and "store.example" in text


def test_inputs_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in/b.PDF", "in/sub/a.png", "in/notes.txt", "in/.hidden.pdf", "in/.git/x.pdf", "in/out/old.png", "odd.name"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path / "in")
    out = tmp_path / "in" / "out"
    found = collect(["in"], [], out)
    assert [(one.shown, one.folder, one.stem) for one in found] == [("in/b.PDF", (), "b"), ("in/sub/a.png", ("sub",), "a")]
    assert [one.shown for one in collect(["in/**/*"], [], out)] == ["in/b.PDF", "in/sub/a.png"]
    assert collect(["in/*/a.*"], [], out)[0].folder == ("sub",)
    assert [one.shown for one in collect(["odd.name", "./odd.name", "in"], [], out)] == ["odd.name", "in/b.PDF", "in/sub/a.png"]
    (url,) = collect(["https://example.org/x/some%20paper.pdf?download=1"], [], None)
    assert url.is_url and url.stem == "some paper"
    listed = names_on("in\nodd.name\n\nnot there.pdf\nhttp://example.org/\n")
    assert [one.shown for one in collect(["-"], listed, out)] == [
        *("in/b.PDF", "in/sub/a.png", "odd.name", "not there.pdf", "http://example.org/")
    ]
    assert names_on("new\nline\0b\0") == ["new\nline", "b"]
    assert names_on("a\x0bb\u2028c\r\nd") == ["a\x0bb\u2028c", "d"], "only a line feed ends a name"


@pytest.mark.parametrize("argument", ["nope.pdf", "nope/*.pdf", "empty"])
def test_nothing_to_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitError) as caught:
        collect([argument], [], None)
    assert caught.value.code == ExitCode.INPUT


def test_a_record_of_another_version_is_an_error() -> None:
    with pytest.raises((KeyError, ValueError)):
        past_of([{"what": "begun", "key": "a"}])
