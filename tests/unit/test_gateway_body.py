"""The gateway's request body, read as it comes: wherever it is cut, it gives what json.loads and b64decode give."""

from __future__ import annotations

import base64
import json
import os
import random
import time
from pathlib import Path

import pytest
from kit.gateway import body
from kit.gateway.body import FileValue, LayoutBody, Room, Spool, parse_object
from kit.gateway.causes import Refusal
from support import skip

DATA = bytes(range(0, 256, 8)) + b"\xfb\xef\xff\xff\xff"  # its base64 has +, / and =
TEXT = base64.b64encode(DATA).decode()
TRICKY = [
    '{"file": "%s", "fileType": 0}',
    '{"fileType":0,"file":"%s"}',
    ' \n{ "a" : { "file" : "QUJD" } , "file" : "%s" , "b" : [ "file" , { "file": 1 } ] }',
    '{"a": "\\"file\\": \\"x\\"", "file": "%s", "b\\\\": "\\\\"}',
    '{"a": "}{][,:", "\\u0066\\u0069le": "%s", "c": "é漢\\ud83d\\ude00"}',
    '\ufeff{"a": "file", "file": "%s"}',
    '{"logId": "file", "x": {"y": [[], {}, "file"]}, "file":\t"%s"}',
]


def read(chunks: list[bytes], limit: int = 10**6) -> tuple[dict[str, object], bytes, FileValue]:
    value = FileValue(Spool(Room(None, 10**7)), limit)
    layout = LayoutBody(value)
    for chunk in chunks:
        layout.feed(chunk)
    fields = layout.end()
    if layout.wrong is not None:
        raise layout.wrong
    return fields, value.spool.read(0, value.spool.size), value


def refused(chunks: list[bytes], limit: int = 10**6) -> str:
    with pytest.raises(Refusal) as caught:
        read(chunks, limit)
    return caught.value.cause.name


@pytest.mark.parametrize("template", TRICKY)
@pytest.mark.parametrize("text", [TEXT, TEXT.replace("/", "\\/").replace("A", "\\u0041"), "\\n".join(TEXT)])
def test_every_cut_gives_the_same(template: str, text: str) -> None:
    whole = (template % text).encode()
    expected = json.loads(whole.decode("utf-8-sig")) | {"file": ""}
    for at in range(len(whole) + 1):
        fields, data, _ = read([whole[:at], whole[at:]])
        assert (fields, data) == (expected, DATA), at
    assert read([whole[at : at + 1] for at in range(len(whole))])[:2] == (expected, DATA)


def test_any_json_is_read_as_json_loads_reads_it() -> None:
    """Made up at random with a fixed seed: nested values whose texts look like the outside of texts."""
    dice = random.Random(6)

    def value(depth: int) -> object:
        kind = dice.randrange(6 if depth else 4)
        if kind < 4:
            return [dice.choice(['file"', "\\", '{"file": "', "é", ""]), dice.random(), None, True][kind]
        names = [dice.choice(["file", "f", '"', "\\", "fi\\le"]) for _ in range(3)]
        return [value(depth - 1) for _ in range(3)] if kind == 4 else {name: value(depth - 1) for name in names}

    for _ in range(300):
        made = {"a": value(3), "file": TEXT, "b": value(3)}
        whole = json.dumps(made, ensure_ascii=dice.random() < 0.5).encode()
        cuts = sorted(dice.randrange(len(whole)) for _ in range(4))
        chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert read(chunks)[:2] == (made | {"file": ""}, DATA)


def test_a_url_is_kept_and_what_is_no_text_is_left_to_the_checks() -> None:
    fields, data, value = read([b'{"file": "htt', b'p://host/\\u0061.png"}'])
    assert (fields, data, value.url) == ({"file": ""}, b"", "http://host/a.png")
    for wrong in ("7", "null", "[]", '{"file": "QUJD"}'):
        fields, data, _ = read([b'{"file": ' + wrong.encode() + b"}"])
        assert (fields, data) == ({"file": json.loads(wrong)}, b"")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("QUJ", "base64"), ("QUJD=", "base64"), ("QU=JD", "base64"), ("QUJDQUI=QUJD", "base64"), ("QQ======", "base64"),
        ("QQ==QQ==", "base64"), ("Q===", "base64"), ("=", "base64"),
        ("QUJ-", "base64"), ("data:x,QUJD", "base64"), ("http://" + "x" * 9000, "bad-field"), ("http://\xe4/", "bad-field"),
        ("QUJD" * 40, "too-large"), ("\x01", "json"),
    ],
)  # fmt: skip
def test_what_is_no_base64_is_refused_wherever_it_is_cut(text: str, cause: str) -> None:
    whole = b'{"file": "' + text.encode() + b'"}'
    for at in range(0, len(whole), max(1, len(whole) // 50)):
        assert refused([whole[:at], whole[at:]], limit=100) == cause, at


def test_what_is_beside_the_file_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MAX_REST", 100)
    assert refused([b'{"x": "', *[b"x" * 10] * 10, b'"}']) == refused([b"["] * 101) == "too-large"
    assert read([b'{"x": "', *[b"x" * 10] * 5, b'", "file": ""}'])[0]["x"] == "x" * 50


def test_a_file_that_is_too_large_is_refused_at_once() -> None:
    layout = LayoutBody(FileValue(Spool(Room(None, 1000)), 100))
    with pytest.raises(Refusal, match="larger than"):
        layout.feed(b'{"file": "' + b"QUJD" * 40)


def test_what_is_wrong_with_a_file_is_told_when_all_fields_are_known() -> None:
    value = FileValue(Spool(Room(None, 100)), 100)
    layout = LayoutBody(value)
    layout.feed(b'{"file": "no base64!' + b"QUJD" * 1000 + b'", "logId": "mine"}')
    assert layout.end() == {"file": "", "logId": "mine"} and layout.wrong is not None
    assert (layout.wrong.cause.name, value.spool.size) == ("base64", 0)


def test_a_body_of_very_many_values_is_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MAX_VALUES", 10)
    assert parse_object(b'{"a": [1, 2, 3, 4, 5]}') == {"a": [1, 2, 3, 4, 5]}
    with pytest.raises(Refusal, match="more than 10 values"):
        parse_object(b'{"a": [' + b"{}," * 10 + b"1]}")


@pytest.mark.parametrize("depth", [101, 980, 100_000])
def test_what_is_nested_too_deep_is_refused_before_it_is_written_anew(depth: int) -> None:
    assert parse_object(b'{"a": ' + b"[" * 99 + b"]" * 99 + b"}")
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        inner = opening * depth + (b"1" if closing == b"}" else b"") + closing * depth
        with pytest.raises(Refusal, match="nested too deep"):
            parse_object(b'{"a": ' + inner + b"}")


@pytest.mark.parametrize("escape", ["\\/", "\\u0041", "\\n", "\\\\", '\\"', "\\u00e4", "\\q"])
def test_a_file_all_of_escapes_costs_little_more_than_one_without(escape: str) -> None:
    def seconds(text: str) -> float:
        body = b'{"file": "' + text.encode() * (2**22 // len(text)) + b'"}'
        layout = LayoutBody(FileValue(Spool(Room(None, 10**9)), 10**9))
        begun = time.process_time()
        for at in range(0, len(body), 2**16):
            layout.feed(body[at : at + 2**16])
        return time.process_time() - begun

    assert seconds(escape) < 3.0, "100 MiB of it would hold the event loop for very long"


def test_an_escape_that_json_does_not_have_is_refused_wherever_it_is_cut() -> None:
    for text, cause in (("QU\\q", "base64"), ("QU\\u00", "json"), ("QU\\u00g1", "json"), ("QU\\ud83d", "base64")):
        whole = b'{"file": "' + text.encode() + b'"}'
        assert {refused([whole[:at], whole[at:]]) for at in range(len(whole))} == {cause}, text


def test_a_spool_goes_to_a_file_and_leaves_none(tmp_path: Path) -> None:
    room = Room(tmp_path, 10 * body.IN_MEMORY)
    spool = Spool(room)
    spool.write(b"x" * body.IN_MEMORY)
    assert spool.path is None and room.used == 0 and isinstance(spool.source(), bytes)
    spool.write(b"yz")
    assert spool.path is not None and spool.path.stat().st_size == room.used == spool.size == body.IN_MEMORY + 2
    assert base64.b64decode(b"".join(spool.base64_pieces())) == b"x" * body.IN_MEMORY + b"yz"
    assert (spool.read(body.IN_MEMORY - 1, 9), spool.source()) == (b"xyz", str(spool.path))
    spool.close()
    assert (list(tmp_path.iterdir()), room.used) == ([], 0)


def test_what_a_killed_gateway_has_left_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(Room(tmp_path, 10 * body.IN_MEMORY))
    spool.write(b"x" * 2 * body.IN_MEMORY)
    old, new, other = (tmp_path / name for name in ("kit-gateway-old", "kit-gateway-new", "other"))
    for path in (old, new, other):
        path.write_text("x")
    for path in (old, other, spool.path):
        assert path is not None
        os.utime(path, (0, 0))
    Room(tmp_path, 0).sweep()
    assert set(tmp_path.iterdir()) == {new, other, spool.path}
    spool.close()


def test_spools_share_their_room(tmp_path: Path) -> None:
    room = Room(tmp_path, 3 * body.IN_MEMORY)
    first, second = Spool(room), Spool(room)
    first.write(b"x" * 2 * body.IN_MEMORY)
    second.write(b"x" * body.IN_MEMORY)
    with pytest.raises(Refusal) as caught:
        second.write(b"x")
    assert caught.value.cause.name == "no-room" and caught.value.retry_after
    first.close()
    second.write(b"x")
    second.close()
    assert room.used == 0 and not list(tmp_path.iterdir())


def test_a_full_disk_is_no_fault_of_the_gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        skip("needs Linux's /dev/full")
    spool = Spool(Room(tmp_path, 10**9))
    monkeypatch.setattr(body.tempfile, "NamedTemporaryFile", lambda **_: Path("/dev/full").open("r+b"))  # noqa: SIM115
    with pytest.raises(Refusal) as caught:
        spool.write(b"x" * 2 * body.IN_MEMORY)
    assert caught.value.cause.name == "no-room"
    spool.close()
