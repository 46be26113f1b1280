"""The VLM stand-in as a process: the protocol that PaddleX's client speaks with vLLM, every prompt, every refusal."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from support import ROOT, SAMPLES, free_port

MODEL = "PaddleOCR-VL-0.9B"
TITLE = (100, 130, 800, 210)  # places on invoice.png, pixels
PARAGRAPH = (110, 430, 1220, 550)
TABLE = (120, 597, 1205, 918)


@contextmanager
def serving(install: Any, *options: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    """A stand-in of its own, ready; ended afterwards."""
    port = free_port()
    table_model = Path(install.models_dir) / "weights" / "en_ppstructure_mobile_v2_SLANet.onnx"
    process = subprocess.Popen(
        [
            *(str(install.vlm_python), "-m", "kit.preview.vlm.server", "--port", str(port)),
            *("--model-name", MODEL, "--table-model", str(table_model), *options),
        ],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
    try:
        wait_until(lambda: healthy(client) or process.poll() is not None, 120)
        assert process.poll() is None, process.communicate()[0]
        yield client, process
    finally:
        client.close()
        process.kill()
        process.communicate()


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


def healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def vlm(preview_install) -> Iterator[httpx.Client]:
    with serving(preview_install, "--workers", "1") as (client, _):
        yield client


def crop(place: tuple[int, int, int, int] = TITLE) -> Image.Image:
    return Image.open(SAMPLES / "invoice.png").convert("RGB").crop(place)


def data_uri(picture: Image.Image) -> str:
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=95)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def body(prompt: str = "OCR:", picture: Image.Image | None = None, **changes: Any) -> dict[str, Any]:
    """A request as PaddleX 3.7.2 sends it (recorded), with `changes`."""
    image = {"type": "image_url", "image_url": {"url": data_uri(picture or crop())}}
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": prompt}]}],
        "max_completion_tokens": 4096,
        "temperature": 0,
        "skip_special_tokens": True,
        "mm_processor_kwargs": {"min_pixels": 112896, "max_pixels": 1003520},
    } | changes


def ask(vlm: httpx.Client, *arguments: Any, **changes: Any) -> dict[str, Any]:
    response = vlm.post("/v1/chat/completions", json=body(*arguments, **changes))
    assert response.status_code == 200, response.text
    return response.json()


def text(vlm: httpx.Client, *arguments: Any, **changes: Any) -> str:
    return ask(vlm, *arguments, **changes)["choices"][0]["message"]["content"]


def refusal(vlm: httpx.Client, request: Any) -> tuple[int, str, str]:
    """Status, kind and message of an error, which must have vLLM's form."""
    content = request if isinstance(request, bytes) else None
    response = vlm.post("/v1/chat/completions", content=content, json=None if content is not None else request)
    error = response.json()["error"]
    assert error["code"] == response.status_code
    return response.status_code, error["type"], error["message"]


def test_the_model_list_names_the_model_and_says_who_serves_it(vlm):
    (model,) = vlm.get("/v1/models").json()["data"]
    assert (model["id"], model["owned_by"]) == (MODEL, "cpu-preview-standin")


def test_a_reply_has_openais_form_and_an_honest_model(vlm):
    reply = ask(vlm)
    assert reply["object"] == "chat.completion"
    assert reply["model"] == f"{MODEL}-cpu-preview-standin"
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["usage"]["total_tokens"] == reply["usage"]["prompt_tokens"] + reply["usage"]["completion_tokens"] > 0


def test_ocr_reads_a_title(vlm):
    assert text(vlm, "OCR:") == "Invoice 2026-0117"


def test_ocr_reads_a_paragraph_as_one_line(vlm):
    assert text(vlm, "OCR:", crop(PARAGRAPH)) == (
        "Thank you for your order of 3 November. The goods left our warehouse two days later and were signed for at your "
        "front desk. One box of envelopes is still missing; it will follow free of charge."
    )


def test_ocr_of_an_empty_crop_is_empty(vlm):
    assert text(vlm, "OCR:", Image.new("RGB", (300, 200), "white")) == ""


def test_a_table_is_otsl_with_its_empty_cells(vlm):
    rows = [row.split("<fcel>") for row in text(vlm, "Table Recognition:", crop(TABLE)).split("<nl>")]
    assert rows[0] == ["", "Article", "Quantity", "Unit price", "Amount"]
    assert rows[5] == ["<ecel><ecel>", "Total", "241.37"]
    assert rows[6:] == [[""]]


def test_a_formula_is_marked_as_one(vlm):
    assert text(vlm, "Formula Recognition:") == r"\[ Invoice 2026-0117 \]"


def test_a_chart_is_rows_of_values(vlm):
    assert "Toner cartridge, black | 2 | 61.20 | 122.40" in text(vlm, "Chart Recognition:", crop(TABLE)).splitlines()


def test_a_seal_is_read(vlm):
    assert text(vlm, "Seal Recognition:") == "Invoice 2026-0117"


def test_spotting_gives_each_line_four_corners(vlm):
    spotted = text(vlm, "Spotting:", skip_special_tokens=False)
    words, places = spotted[: spotted.index("<|LOC_")], [int(place) for place in re.findall(r"<\|LOC_(\d+)\|>", spotted)]
    assert words == "Invoice 2026-0117"
    left, top, right, upper, _, bottom, *_ = places
    assert len(places) == 8 and 0 <= left < right <= 1000 and 0 <= top == upper < bottom <= 1000


def test_an_answer_is_cut_at_the_limit_and_says_so(vlm):
    (choice,) = ask(vlm, "OCR:", crop(PARAGRAPH), max_completion_tokens=5)["choices"]
    assert choice["finish_reason"] == "length"
    assert "Thank you for your order".startswith(choice["message"]["content"]) and choice["message"]["content"]


def test_a_transparent_picture_is_read_on_white(vlm):
    encoded = io.BytesIO()
    drawn = Image.new("RGBA", crop().size, (0, 0, 0, 0))
    drawn.paste((0, 0, 0, 255), mask=crop().convert("L").point(lambda level: 255 - level))
    drawn.save(encoded, "PNG")
    request = body()
    request["messages"][0]["content"][0]["image_url"]["url"] = (
        f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    )
    reply = vlm.post("/v1/chat/completions", json=request).json()
    assert reply["choices"][0]["message"]["content"] == "Invoice 2026-0117"


def test_another_model_is_not_found(vlm):
    status, kind, message = refusal(vlm, body(model="PaddleOCR-VL-1.5-0.9B"))
    assert (status, kind) == (404, "NotFoundError")
    assert message == "The model `PaddleOCR-VL-1.5-0.9B` does not exist."


def without_image() -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": "OCR:"}])


def with_url(url: str) -> dict[str, Any]:
    request = body()
    request["messages"][0]["content"][0]["image_url"]["url"] = url
    return request


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: b"{", "not JSON"),
        (lambda: b"\xff\xfe", "not JSON"),
        (lambda: b"[]", "JSON object"),
        (lambda: body(messages=[]), "messages"),
        (without_image, "no image"),
        (lambda: with_url("data:image/jpeg;base64,AAAA"), "cannot be decoded"),
        (lambda: with_url("data:image/jpeg;base64,%%%"), "cannot be decoded"),
        (lambda: with_url("http://127.0.0.1:1/picture.png"), "data: URI"),
        (lambda: body("Describe this picture."), "unknown prompt"),
        (lambda: body(stream=True), "does not stream"),
        (lambda: body(max_completion_tokens=0), "max_completion_tokens"),
        (lambda: body(max_completion_tokens="many"), "max_completion_tokens"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_answered_is_refused_with_its_cause(vlm, make, says):
    status, kind, message = refusal(vlm, make())
    assert (status, kind) == (400, "BadRequestError")
    assert says in message


def test_requests_beyond_the_queue_are_refused_and_the_others_answered(preview_install):
    with serving(preview_install, "--workers", "1", "--max-waiting", "1") as (client, _), ThreadPoolExecutor(8) as threads:
        request = body("OCR:", crop(PARAGRAPH))
        replies = list(threads.map(lambda _: client.post("/v1/chat/completions", json=request), range(8)))
    statuses = [reply.status_code for reply in replies]
    assert set(statuses) == {200, 429}
    refused = replies[statuses.index(429)].json()["error"]
    assert refused["code"] == 429 and "try again" in refused["message"]


def test_a_request_whose_client_has_gone_is_not_computed(preview_install):
    """Twenty whole pages would keep the one worker busy for half a minute."""
    page = body("OCR:", Image.open(SAMPLES / "invoice.png").convert("RGB"))
    with serving(preview_install, "--workers", "1") as (client, _):
        start = time.monotonic()
        client.post("/v1/chat/completions", json=page)
        one_page = time.monotonic() - start

        def leave_early(_: int) -> None:
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(
                    f"{client.base_url}/v1/chat/completions", json=page, timeout=httpx.Timeout(30, read=0.2), trust_env=False
                )

        with ThreadPoolExecutor(20) as threads:
            list(threads.map(leave_early, range(20)))
        start = time.monotonic()
        assert text(client) == "Invoice 2026-0117"
        assert time.monotonic() - start < 5 * one_page


def test_it_says_what_it_is_and_ends_at_once(preview_install):
    with serving(preview_install, "--workers", "2") as (_, process):
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
        assert time.monotonic() - start < 2
    first = output.splitlines()[0]
    for words in ("PP-OCRv6 small", "SLANet", "not PaddleOCR-VL's accuracy", "2 workers"):
        assert words in first
