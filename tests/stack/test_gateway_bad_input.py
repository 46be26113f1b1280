"""Whatever is sent: the right 4xx with its cause, never a 5xx, never a hang, and the next page is parsed."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_stack import Process, assemble, bench, cause, encoded, make_pdf, make_picture, make_tiff, post, texts
from PIL import Image
from support import make_encrypted_pdf

PICTURE = make_picture()
GOOD: dict[str, Any] = {"file": encoded(PICTURE), "fileType": 1}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def door(api_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with bench(api_python, tmp_path_factory.mktemp("bad")) as made:
        made.fake()
        yield made.gateway(max_body_mib="2", max_pages="20", stall_seconds="1")


@pytest.fixture(autouse=True)
def next_page_is_parsed(door: Process) -> Iterator[None]:
    yield
    assert texts(post(door.url, PICTURE)) == ["picture (1, 2, 3)"]


def picture_of(width: int, height: int) -> bytes:
    """A PNG that claims to be so large; no pixel of it exists."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def pdf_of_size(pages: int) -> bytes:
    """A PDF that claims so many pages and has one."""
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [3 0 R] /Count %d >>" % pages,
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] >>",
        ]
    )


def bytes_of(kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("P" if kind == "GIF" else "RGB", (8, 8)).save(out, kind, **options)
    return out.getvalue()


def endless_tiff() -> bytes:
    """A TIFF whose second directory names itself as the next one."""
    data = bytearray(make_tiff([(1, 1, 1), (2, 2, 2)]))
    first = struct.unpack_from("<I", data, 4)[0]
    count = struct.unpack_from("<H", data, first)[0]
    second = struct.unpack_from("<I", data, first + 2 + 12 * count)[0]
    count = struct.unpack_from("<H", data, second)[0]
    struct.pack_into("<I", data, second + 2 + 12 * count, second)
    return bytes(data)


# name: (fields, status and cause, what the sentence says)
FIELDS: dict[str, tuple[dict[str, Any], tuple[int, str], str]] = {
    "misspelt": ({"visualise": True}, (422, "unknown-field"), "did you mean `visualize`?"),
    "snake case": ({"use_layout_detection": True}, (422, "unknown-field"), "`useLayoutDetection`"),
    "other service's name": ({"prompt": "ocr"}, (422, "unknown-field"), "`promptLabel`"),
    "unknown": ({"x" * 200: 1}, (422, "unknown-field"), "/openapi.json"),
    "empty name": ({"": 1}, (422, "unknown-field"), "unknown field"),
    "vlmExtraArgs unknown": ({"vlmExtraArgs": {"use_cache": 1}}, (422, "unknown-field"), "vlmExtraArgs.use_cache"),
    "boolean as text": ({"useLayoutDetection": "true"}, (422, "bad-field"), "true or false"),
    "number as text": ({"temperature": "warm"}, (422, "bad-field"), "number from 0 to 100"),
    "negative": ({"temperature": -1}, (422, "bad-field"), "`temperature`"),
    "infinite": ({"temperature": 1e308 * 10}, (422, "json"), "Infinity"),
    "boolean as number": ({"topP": True}, (422, "bad-field"), "above 0, at most 1"),
    "zero where above zero": ({"topP": 0}, (422, "bad-field"), "above 0"),
    "fraction as whole": ({"maxNewTokens": 1.5}, (422, "bad-field"), "whole number"),
    "huge": ({"maxPixels": 10**30}, (422, "bad-field"), "`maxPixels`"),
    "min above max": ({"minPixels": 9, "maxPixels": 8}, (422, "bad-field"), "above `maxPixels`"),
    "null where not": ({"prettifyMarkdown": None}, (422, "bad-field"), "true or false"),
    "no such label": ({"promptLabel": "poem"}, (422, "bad-field"), "ocr, formula"),
    "no such shape": ({"layoutShapeMode": "star"}, (422, "bad-field"), "rect, quad"),
    "no such format": ({"outputFormats": ["exe"]}, (422, "bad-field"), "docx"),
    "list of numbers": ({"markdownIgnoreLabels": [1]}, (422, "bad-field"), "markdownIgnoreLabels[0]"),
    "object for list": ({"markdownIgnoreLabels": {}}, (422, "bad-field"), "a list"),
    "threshold above 1": ({"layoutThreshold": 1.01}, (422, "bad-field"), "from 0 to 1"),
    "threshold by name": ({"layoutThreshold": {"text": 0.5}}, (422, "bad-field"), "class ids"),
    "class id with a line break": ({"layoutThreshold": {"22\n": 0.5}}, (422, "bad-field"), "class ids"),
    "threshold by class": ({"layoutThreshold": {"22": 2}}, (422, "bad-field"), "layoutThreshold.22"),
    "one unclip ratio in a list": ({"layoutUnclipRatio": [1]}, (422, "bad-field"), "`layoutUnclipRatio`"),
    "mode": ({"layoutMergeBboxesMode": {"1": "huge"}}, (422, "bad-field"), "large, small, union"),
    "logId with a line break": ({"logId": "a\nb"}, (422, "bad-field"), "`logId`"),
    "logId as a path": ({"logId": "../../etc/passwd"}, (422, "bad-field"), "`logId`"),
    "logId of 200": ({"logId": "x" * 200}, (422, "bad-field"), "1 to 128"),
    "logId as number": ({"logId": 7}, (422, "bad-field"), "`logId`"),
    "file as number": ({"file": 7}, (422, "bad-field"), "`file`"),
    "file as null": ({"file": None}, (422, "bad-field"), "`file`"),
    "file as list": ({"file": [GOOD["file"]]}, (422, "bad-field"), "`file`"),
    "fileType 2": ({"fileType": 2}, (422, "bad-field"), "one of 0, 1"),
    "fileType as text": ({"fileType": "1"}, (422, "bad-field"), "one of 0, 1"),
    "fileType true": ({"fileType": True}, (422, "bad-field"), "one of 0, 1"),
    "no fileType": ({"fileType": None}, (422, "file-type"), "0 for a PDF"),
    "empty file": ({"file": ""}, (422, "empty-file"), "empty"),
    "only white space": ({"file": " \n"}, (422, "empty-file"), "empty"),
    "not base64": ({"file": "no base64!"}, (422, "base64"), '"!"'),
    "URL-safe base64": ({"file": "abc-"}, (422, "base64"), "URL-safe"),
    "cut base64": ({"file": GOOD["file"][:-3]}, (422, "base64"), "cut"),
    "base64 after its end": ({"file": "QUI=QUJD"}, (422, "base64"), "base64"),
    "not ASCII": ({"file": "ÄÖ漢字"}, (422, "base64"), "base64"),
    "data: URI": ({"file": f"data:image/png;base64,{GOOD['file']}"}, (422, "base64"), "behind its comma"),
    "URL": ({"file": "http://127.0.0.1/x.png"}, (422, "url-refused"), "base64"),
    "URL in capitals": ({"file": "HTTPS://example.com/x.png"}, (422, "url-refused"), "fetches none"),
    "file: URL": ({"file": "file:///etc/passwd"}, (422, "base64"), "base64"),
}  # fmt: skip

# name: (content, fileType, status and cause, what the sentence says)
FILES: dict[str, tuple[Callable[[], bytes], int, tuple[int, str], str]] = {
    "random": (lambda: bytes(range(256)), 1, (422, "unreadable"), "neither a PDF nor a picture"),
    "text": (lambda: b"just text", 0, (422, "unreadable"), "neither"),
    "HTML": (lambda: b"<!DOCTYPE html><html>", 0, (422, "unreadable"), "HTML"),
    "Office": (lambda: b"PK\x03\x04" + b"0" * 99, 0, (422, "unreadable"), "Office"),
    "GIF": (lambda: bytes_of("GIF"), 1, (422, "unreadable"), "GIF"),
    "PDF as picture": (lambda: make_pdf(["x"]), 1, (422, "file-type"), "send fileType 0"),
    "picture as PDF": (lambda: PICTURE, 0, (422, "file-type"), "send fileType 1"),
    "password": (lambda: make_encrypted_pdf(b"secret"), 0, (422, "encrypted"), "password"),
    "corrupt PDF": (lambda: b"%PDF-1.4\n" + b"x" * 500, 0, (422, "corrupt"), "damaged"),
    "PDF without a page": (lambda: assemble([b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [] /Count 0 >>"]),
                           0, (422, "corrupt"), "PDF"),
    "21 pages": (lambda: make_pdf(["x"] * 21), 0, (413, "too-many-pages"), "21 pages, the limit is 20"),
    "a million pages, it says": (lambda: pdf_of_size(10**6), 0, (413, "too-many-pages"), "limit"),
    "TIFF of 21 pages": (lambda: make_tiff([(n, n, n) for n in range(21)]), 1, (413, "too-many-pages"), "more than 20"),
    "cut TIFF": (lambda: make_tiff([(1, 1, 1)] * 3)[:60], 1, (422, "corrupt"), "damaged"),
    "PNG bomb": (lambda: picture_of(60000, 60000), 1, (422, "too-many-pixels"), "178,956,970"),
    "cut PNG": (lambda: PICTURE[:60], 1, (422, "corrupt"), "damaged"),
    "head of a PNG alone": (lambda: PICTURE[:8], 1, (422, "corrupt"), "PNG"),
    "cut JPEG": (lambda: make_picture(kind="JPEG", size=(800, 800))[:700], 1, (422, "corrupt"), "damaged"),
}  # fmt: skip

# name: (body, further headers, status and cause, what the sentence says)
BODIES: dict[str, tuple[bytes, dict[str, str], tuple[int, str], str]] = {
    "no body": (b"", {}, (422, "json"), "empty"),
    "not JSON": (b"file=abc", {}, (422, "json"), "not JSON"),
    "cut JSON": (b'{"file": "QUJD"', {}, (422, "json"), "not JSON"),
    "cut in the file": (b'{"file": "QUJD', {}, (422, "json"), "not JSON"),
    "two objects": (b'{"file": "QUJD"}{}', {}, (422, "json"), "not JSON"),
    "a list": (b"[1]", {}, (422, "json"), "JSON object"),
    "null": (b"null", {}, (422, "json"), "JSON object"),
    "NaN": (b'{"file": "QUJD", "fileType": 1, "topP": NaN}', {}, (422, "json"), "NaN"),
    "no file": (b"{}", {}, (422, "bad-field"), "`file` is required"),
    "file twice": (b'{"file": "QUJD", "file": "QUJD"}', {}, (422, "bad-field"), "twice"),
    "file twice, once escaped": (b'{"file": "QUJD", "\\u0066ile": "QUJD"}', {}, (422, "bad-field"), "twice"),
    "a field twice": (b'{"topP": 1, "topP": 1}', {}, (422, "bad-field"), "twice"),
    "line break in base64": (b'{"file": "QUJD\n", "fileType": 1}', {}, (422, "json"), "control character"),
    "escape in base64": (b'{"file": "QU\\q", "fileType": 1}', {}, (422, "base64"), "base64"),
    "UTF-16": ('{"file": "QUJD"}'.encode("utf-16"), {}, (422, "json"), "UTF-8"),
    "Latin-1": (b'{"logId": "\xe4"}', {}, (422, "json"), "UTF-8"),
    "nested": (b'{"file": ' + b"[" * 50000, {}, (422, "json"), "deep"),
    "nested a little less": (b'{"markdownIgnoreLabels": ' + b"[" * 980 + b"]" * 980 + b"}", {}, (422, "json"), "deep"),
    "digits": (b'{"topP": ' + b"1" * 5000 + b"}", {}, (422, "json"), "not JSON"),
    "much beside the file": (b'{"logId": "' + b"x" * 1_100_000 + b'"}', {}, (413, "too-large"), "beside `file`"),
    "large": (b'{"file": "' + b"QUJD" * 600_000 + b'"}', {}, (413, "too-large"), "2 MiB"),
    "form": (b"file=1", {"Content-Type": "application/x-www-form-urlencoded"}, (415, "content-type"), "application/json"),
    "multipart": (b"--x", {"Content-Type": "multipart/form-data; boundary=x"}, (415, "content-type"), "application/json"),
    "odd type": (b"{}", {"Content-Type": "é".encode().decode("latin-1")}, (415, "content-type"), "application/json"),
    "gzip": (gzip.compress(json.dumps(GOOD).encode()), {"Content-Encoding": "gzip"}, (415, "content-type"), "compressed"),
}  # fmt: skip

PAGE = {"prunedResult": {"parsing_res_list": [{"block_label": "text", "block_content": "x", "block_bbox": [0, 0, 1, 1]}],
                         "model_settings": {"use_doc_preprocessor": False, "use_layout_detection": False},
                         "width": 1, "height": 1, "page_count": None}}  # fmt: skip
WITH_PATH = {"block_label": "image", "block_content": "", "block_bbox": [0, 0, 1, 1], "image": {"path": "/etc/passwd"}}
RESTRUCTURE: dict[str, tuple[dict[str, Any], str]] = {
    "no pages": ({}, "`pages` is required"),
    "empty": ({"pages": []}, "at least 1"),
    "page as text": ({"pages": ["x"]}, "pages[0]"),
    "whole page of a reply": ({"pages": [{**PAGE, "markdown": {}}]}, "unknown field"),
    "no prunedResult": ({"pages": [{}]}, "prunedResult"),
    "hollow prunedResult": ({"pages": [{"prunedResult": {}}]}, "parsing_res_list"),
    "URL as a picture": ({"pages": [{**PAGE, "markdownImages": {"a": "http://169.254.169.254/"}}]}, "no URL"),
    "file": ({"pages": [PAGE], "file": "x"}, "unknown field"),
    "a path in a block": ({"pages": [{"prunedResult": {**PAGE["prunedResult"], "parsing_res_list": [WITH_PATH]}}]}, "image"),
}  # fmt: skip


def check(reply: httpx.Response, expected: tuple[int, str], said: str) -> None:
    assert cause(reply) == expected, reply.text
    assert said in reply.json()["errorMsg"]


@pytest.mark.parametrize("name", FIELDS)
def test_fields(door: Process, name: str) -> None:
    fields, expected, said = FIELDS[name]
    body = json.dumps(GOOD | fields)
    check(httpx.post(f"{door.url}/layout-parsing", content=body, headers=JSON, trust_env=False, timeout=20), expected, said)


@pytest.mark.parametrize("name", FILES)
def test_files(door: Process, name: str) -> None:
    content, file_type, expected, said = FILES[name]
    check(post(door.url, content(), fileType=file_type, timeout=20), expected, said)


@pytest.mark.parametrize("name", BODIES)
def test_bodies(door: Process, name: str) -> None:
    body, headers, expected, said = BODIES[name]
    raw = {key.encode(): value.encode("latin-1") for key, value in (JSON | headers).items()}
    check(httpx.post(f"{door.url}/layout-parsing", content=body, headers=raw, trust_env=False, timeout=20), expected, said)


@pytest.mark.parametrize("name", RESTRUCTURE)
def test_pages_to_put_together(door: Process, name: str) -> None:
    fields, said = RESTRUCTURE[name]
    reply = post(door.url, path="/restructure-pages", **fields)
    check(reply, (422, "unknown-field" if said == "unknown field" else "bad-field"), said)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/layout-parsing", (405, "method")),
        ("PUT", "/layout-parsing", (405, "method")),
        ("DELETE", "/restructure-pages", (405, "method")),
        ("POST", "/health", (405, "method")),
        ("POST", "/", (405, "method")),
        ("GET", "/nothing", (404, "not-found")),
        ("POST", "/layout-parsing/", (404, "not-found")),
        ("GET", "/%00", (404, "not-found")),
    ],
)
def test_paths_and_methods(door: Process, method: str, path: str, expected: tuple[int, str]) -> None:
    with httpx.Client(trust_env=False, timeout=20) as client:
        request = client.build_request(method, f"{door.url}/x", json={} if method in ("POST", "PUT") else None)
        request.url = request.url.copy_with(raw_path=path.encode())
        reply = client.send(request)
    assert cause(reply) == expected
    assert expected[0] != 405 or reply.headers["Allow"]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 300_000, b"400"),
        (b"POST /layout-parsing HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /layout-parsing HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n", b"413"),
        (b"POST /layout-parsing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"400"),
        (b"POST /layout-parsing HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", b"408"),
    ],
)
def test_raw_requests(door: Process, sent: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(door.url.rpartition(":")[2])), timeout=30) as client:
        with contextlib.suppress(ConnectionError):  # the answer comes before the end of what is sent
            client.sendall(sent)
        got = client.recv(65536)
    assert got.split()[1:2] == [status], got


def test_a_tiff_that_does_not_end_ends(door: Process) -> None:
    assert len(texts(post(door.url, endless_tiff()))) == 2


def test_a_large_upload_that_is_refused_still_gets_its_answer(door: Process) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(48):
            yield b" " * 65536

    reply = httpx.post(f"{door.url}/layout-parsing", content=body(), headers=JSON, trust_env=False, timeout=20)
    assert cause(reply) == (413, "too-large")


def test_base64_may_be_written_in_any_sound_way(door: Process) -> None:
    lines = encoded(make_picture((9, 9, 9), size=(300, 300)))
    wrapped = "\r\n".join(lines[at : at + 76] for at in range(0, len(lines), 76))
    escaped = json.dumps({"fileType": 1, "f": 0}).replace(
        '"f": 0', '"file": "' + lines.replace("/", "\\/").replace("+", "\\u002B") + '"'
    )
    for body in (json.dumps({"file": wrapped, "fileType": 1}), escaped, "\ufeff" + escaped):
        reply = httpx.post(f"{door.url}/layout-parsing", content=body.encode(), headers=JSON, trust_env=False, timeout=20)
        assert texts(reply) == ["picture (9, 9, 9)"]


def test_there_are_more_than_sixty_cases() -> None:
    assert len(FIELDS) + len(FILES) + len(BODIES) + len(RESTRUCTURE) >= 60
