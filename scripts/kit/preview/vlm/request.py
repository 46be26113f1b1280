"""A chat request as PaddleX's client sends it: read, checked, and its picture decoded."""

from __future__ import annotations

import base64
import binascii
import io
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

# PaddleX's answers are limited to 4096 tokens when the request does not say.
MAX_TOKENS = 4096
# About what a tokenizer makes: a special token, an ideograph, four letters, or a sign; each with the blanks before it.
_TOKEN = re.compile(r"\s*(?:<[^<>\s]{1,12}>|[\u2e80-\uffef]|\w{1,4}|\S)")


class BadRequest(Exception):
    """The request cannot be answered. status: as HTTP; kind: vLLM's name of the error."""

    def __init__(self, message: str, status: int = 400, kind: str = "BadRequestError") -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind

    def body(self) -> dict[str, Any]:
        """vLLM's error body."""
        return {"error": {"message": str(self), "type": self.kind, "param": None, "code": self.status}}


@dataclass(frozen=True)
class ChatRequest:
    """What is used of a request. image_url: a data URI; max_tokens: of the answer."""

    model: str
    prompt: str
    image_url: str
    max_tokens: int


def parse(body: bytes, *, model_name: str, prompts: Collection[str]) -> ChatRequest:
    """The request in `body`. Raises BadRequest, of status 404 for a model other than `model_name`."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise BadRequest("the body must be a JSON object")
    model = request.get("model")
    if model != model_name:
        raise BadRequest(f"The model `{model}` does not exist.", 404, "NotFoundError")
    if request.get("stream"):
        raise BadRequest("the CPU preview's stand-in does not stream: leave `stream` out")
    parts = _parts(request)
    prompt = "".join(part.get("text") or "" for part in parts if part.get("type") == "text").strip()
    if prompt not in prompts:
        raise BadRequest(f"unknown prompt {prompt[:80]!r}; PaddleOCR-VL knows: {', '.join(prompts)}")
    return ChatRequest(model, prompt, _image_url(parts), _max_tokens(request))


def _parts(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The content of the last message, as a list of parts."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        raise BadRequest("`messages` must be a list of messages and not be empty")
    content = messages[-1].get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise BadRequest("the last message's `content` must be a text or a list of parts")
    return content


def _image_url(parts: list[dict[str, Any]]) -> str:
    for part in parts:
        if part.get("type") == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, dict) else image
            # Nothing is ever fetched: no address may make this server reach out.
            if not isinstance(url, str) or not url.startswith("data:"):
                raise BadRequest("the image must be given as a data: URI")
            return url
    raise BadRequest("the request holds no image")


def _max_tokens(request: dict[str, Any]) -> int:
    limit = request.get("max_completion_tokens")
    if limit is None:
        limit = request.get("max_tokens")
    if limit is None:
        return MAX_TOKENS
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise BadRequest("`max_completion_tokens` must be a whole number, at least 1")
    return limit


def decode_picture(data_uri: str) -> np.ndarray:
    """The picture in a data URI as BGR uint8 [height, width, 3], on white. Raises BadRequest."""
    _, _, encoded = data_uri.partition(",")
    try:
        picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        pixels = np.asarray(picture.convert("RGB"))
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadRequest(f"the image cannot be decoded: {error}") from error
    return np.ascontiguousarray(pixels[:, :, ::-1])


def token_count(text: str) -> int:
    """About how many tokens a text has."""
    return sum(1 for _ in _TOKEN.finditer(text))


def cut_to_tokens(text: str, limit: int) -> tuple[str, bool]:
    """`text` cut after about `limit` tokens, and whether anything was cut."""
    for number, token in enumerate(_TOKEN.finditer(text), start=1):
        if number > limit:
            return text[: token.start()], True
    return text, False
