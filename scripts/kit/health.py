"""Is it serving? Shallow: the port answers. Wired: the API reaches its VLM. Deep: a page is truly parsed.

PaddleX's own /health says "Healthy" even when every request ends in 500, so
only the deep check may call a service working.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kit import api, documents
from kit.errors import ExitCode, KitError
from kit.probe import Probe, text_of

SHALLOW_TIMEOUT = 2.0  # seconds
DEEP_TIMEOUT = 120.0  # seconds; the first page of a cold VLM is slow


# --- asking


@dataclass(frozen=True)
class Page:
    """A page that was parsed to see whether the service works. seconds: request to reply."""

    markdown: str
    seconds: float


def answers(url: str, timeout: float = SHALLOW_TIMEOUT) -> bool:
    """True when GET `url` gives 200 within `timeout`."""
    try:
        with api.client(url, timeout) as http:
            return http.get(url).status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def deep(url: str, sample: Path, timeout: float = DEEP_TIMEOUT) -> Page:
    """Parse `sample` (one page) through the service at `url`.

    Raises KitError when it does not answer with text: an empty page is no success,
    because a VLM that answers nothing gives HTTP 200 and empty blocks.
    """
    document = documents.read(sample)
    start = time.monotonic()
    result = api.layout_parsing(url, document.data, document.file_type, timeout=timeout)
    if not text_of(result):
        raise KitError(f"{url} answers, but reads no text from {sample.name}", "./kit logs paddleocr-vlm-server", ExitCode.FAILED)
    markdown = "\n\n".join(page["markdown"]["text"] for page in result["layoutParsingResults"])
    return Page(markdown, time.monotonic() - start)


# --- judging


@dataclass(frozen=True)
class Wiring:
    """What the API's pipeline config says of its VLM. requested: the model's name, "" for whatever is served.

    backend: "native" where the model runs inside the API.
    """

    backend: str
    server_url: str = ""
    requested: str = ""
    api_key: str = ""

    @property
    def models_url(self) -> str:
        return self.server_url.rstrip("/") + "/models"


@dataclass(frozen=True)
class Reach:
    """GET models_url, asked from where the API is. status: 0 for no answer. served: names of the models. problem: in words."""

    status: int
    served: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Health:
    """verdict: a word for programs. summary: a line for people. code: the exit code for monitors."""

    verdict: str
    summary: str
    hint: str = ""
    code: ExitCode = ExitCode.OK

    @property
    def healthy(self) -> bool:
        return self.verdict == "healthy"


def wiring(config: Any) -> Wiring:
    """Read a pipeline config. Raises ValueError when it is none.

    PaddleX sends VLRecognition.model_name unless client_kwargs has a model_name of its own; null
    there means the first that the server lists (paddlex 3.7.2, genai_client_predictor.py).
    """
    try:
        recognition = config["SubModules"]["VLRecognition"]
        genai = recognition.get("genai_config") or {}
        client = genai.get("client_kwargs") or {}
        requested = client.get("model_name", recognition.get("model_name"))
        return Wiring(
            str(genai.get("backend") or "native"),
            str(genai.get("server_url") or ""),
            str(requested or ""),
            str(client.get("api_key") or ""),
        )
    except (KeyError, TypeError, AttributeError):
        raise ValueError("it has no SubModules.VLRecognition") from None


def served_names(body: Any) -> tuple[str, ...]:
    """Of a reply to GET /v1/models. Raises ValueError when it is none."""
    if not isinstance(body, Mapping) or not isinstance(body.get("data"), list):
        raise ValueError("no list of models")
    return tuple(str(model["id"]) for model in body["data"] if isinstance(model, Mapping) and "id" in model)


def judge_wiring(found: Wiring, reach: Reach | None) -> Health | None:
    """What is wrong between the API and its VLM; None when nothing is."""
    if found.backend == "native":
        return None  # the model is in the API; whether it should be is for ./kit lint
    logs = "./kit status, ./kit logs paddleocr-vlm-server"
    if reach is None or reach.status == 0:
        why = f": {reach.problem}" if reach and reach.problem else ""
        return Health("vlm-unreached", f"the API does not reach its VLM at {found.server_url}{why}", logs, ExitCode.VLM)
    if reach.status in (401, 403):
        hint = "genai_config.client_kwargs.api_key in the pipeline config must be the VLM server's"
        return Health("vlm-refuses", f"the VLM at {found.server_url} refuses the API's key", hint, ExitCode.VLM)
    if reach.status == 404:
        hint = "genai_config.server_url in the pipeline config must end in /v1"
        return Health("vlm-unreached", f"what answers at {found.server_url} lists no models (HTTP 404)", hint, ExitCode.VLM)
    if reach.status != 200 or reach.problem:
        why = reach.problem or f"HTTP {reach.status}"
        hint = "something answers in the VLM's place, such as a proxy; NO_PROXY of the API must name the VLM's host"
        return Health("vlm-unreached", f"what answers at {found.server_url} is no VLM server: {why}", hint, ExitCode.VLM)
    # vLLM refuses another name with 404 (measured); other servers may not look at it.
    if found.backend == "vllm-server" and found.requested and found.requested not in reach.served:
        serves = ", ".join(reach.served) or "nothing"
        hint = "VLRecognition.model_name in the pipeline config must equal VLM_MODEL_NAME in .env; then ./kit up"
        return Health("wrong-model", f"the API asks for {found.requested}, the VLM serves {serves}", hint, ExitCode.VLM)
    return None


def judge_probe(probe: Probe, *, alive: bool) -> Health | None:
    """What a deep probe says; None when all is well. alive: whether the API's /health answers after it."""
    result = probe.result
    if not probe.sent and (probe.next_in is not None or result is None):
        wait = f"; the next is sent in {probe.next_in:.0f} s at the earliest" if probe.next_in is not None else ""
        return Health("busy", f"busy: {probe.held}{wait}", "./kit logs paddleocr-vl-api", ExitCode.BUSY)
    if result is None:
        raise ValueError("a probe that was sent has a result")
    if result.outcome == "unanswered":
        if not alive:
            return Health(
                "api-dead", "the API took a page and has stopped answering", "./kit logs paddleocr-vl-api", ExitCode.UNREACHABLE
            )
        hint = "it parses one document at a time: wait for what is in its queue, or ./kit logs tells whether the VLM is stuck"
        return Health(
            "busy", f"busy: the API lives, but has not parsed a small page within {result.seconds:.0f} s", hint, ExitCode.BUSY
        )
    if result.outcome == "empty":
        return Health("page-empty", "a page was answered without any text", "./kit logs paddleocr-vlm-server", ExitCode.FAILED)
    if result.outcome == "failed":
        return Health("page-failed", f"a page was not parsed: {result.message}", result.hint, ExitCode.FAILED)
    return None
