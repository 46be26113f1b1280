"""Is it serving? Shallow: the port answers. Deep: a page is truly parsed.

PaddleX's own /health says "Healthy" even when every request ends in 500, so
only the deep check may call a service working.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from kit import api, documents
from kit.errors import ExitCode, KitError

SHALLOW_TIMEOUT = 2.0  # seconds
DEEP_TIMEOUT = 120.0  # seconds; the first page of a cold VLM is slow


@dataclass(frozen=True)
class Page:
    """A page that was parsed to see whether the service works. seconds: request to reply."""

    markdown: str
    seconds: float


def answers(url: str) -> bool:
    """True when GET `url` gives 200 within SHALLOW_TIMEOUT."""
    try:
        with api.client(url, SHALLOW_TIMEOUT) as http:
            return http.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def deep(url: str, sample: Path, timeout: float = DEEP_TIMEOUT) -> Page:
    """Parse `sample` (one page) through the service at `url`.

    Raises KitError when it does not answer with text: an empty page is no success,
    because a VLM that answers nothing gives HTTP 200 and empty blocks.
    """
    document = documents.read(sample)
    start = time.monotonic()
    result = api.layout_parsing(url, document.data, document.file_type, timeout=timeout)
    markdown = "\n\n".join(page["markdown"]["text"] for page in result["layoutParsingResults"])
    if not markdown.strip():
        raise KitError(f"{url} answers, but reads no text from {sample.name}", "./kit logs paddleocr-vlm-server", ExitCode.FAILED)
    return Page(markdown, time.monotonic() - start)
