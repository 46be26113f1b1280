"""A VLM server of set speed: the OpenAI protocol as PaddleX's client speaks it, and no model behind it.

    .kit/preview/api-venv/bin/python benchmarks/vlm_of_set_speed.py --port 8118 --crop-ms 400 --token-ms 10 --batch 32

It reads nothing. What it models is time on a GPU: a crop (one request, one block of a page) takes `crop-ms`, and `token-ms`
for each token of its text, whose number follows from the size of its picture; `batch` crops run side by side, whoever comes
beyond waits for a place. All of it is sleep, so that a small machine can play a GPU host: the CPU is left to the rest.

    GET  /v1/models     owned_by says what this is
    GET  /counters      {"crops", "slot_seconds", "most_at_once"} since the start; a slot is one of `batch`
    POST /speed         {"crop_ms", "token_ms", "batch"}: another speed, once nothing is being answered
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web  # from the API's environment, which has it for PaddleX's serving

OWNER = "model-of-speed-not-of-text"
# A block's JPEG in base64, for each token of its text: text blocks of the samples have about so much.
BASE64_PER_TOKEN = 600
FEWEST_TOKENS, MOST_TOKENS = 4, 512
MAX_BODY = 64 * 2**20


@dataclass(frozen=True)
class Speed:
    """Milliseconds a crop and a token, and how many crops run side by side."""

    crop_ms: float = 400.0
    token_ms: float = 10.0
    batch: int = 32

    def seconds(self, tokens: int) -> float:
        return (self.crop_ms + self.token_ms * tokens) / 1000


class Model:
    """Time passes, words come out."""

    def __init__(self, speed: Speed) -> None:
        self.speed = speed
        self.crops = 0
        self.slot_seconds = 0.0
        self.most_at_once = 0
        self.running = 0
        self._slots = asyncio.Semaphore(speed.batch)

    def set(self, speed: Speed) -> None:
        self.speed = speed
        self._slots = asyncio.Semaphore(speed.batch)

    async def answer(self, tokens: int) -> str:
        async with self._slots:
            self.running += 1
            self.most_at_once = max(self.most_at_once, self.running)
            try:
                await asyncio.sleep(self.speed.seconds(tokens))
            finally:
                self.running -= 1
        self.crops += 1
        self.slot_seconds += self.speed.seconds(tokens)
        # Not one word again and again: PaddleX cuts what repeats itself.
        return " ".join(f"word{number}" for number in range(tokens))


def tokens_of(url: str) -> int:
    """How long a crop's text is, from the size of its picture (a data: URL)."""
    return min(max(len(url) // BASE64_PER_TOKEN, FEWEST_TOKENS), MOST_TOKENS)


def make_app(model: Model, name: str) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY)
    started = int(time.time())

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def models(_: web.Request) -> web.Response:
        one = {"id": name, "object": "model", "created": started, "owned_by": OWNER}
        return web.json_response({"object": "list", "data": [one]})

    async def counters(_: web.Request) -> web.Response:
        counted = {"crops": model.crops, "slot_seconds": model.slot_seconds, "most_at_once": model.most_at_once}
        model.most_at_once = 0
        return web.json_response(counted | asdict(model.speed))

    async def speed(request: web.Request) -> web.Response:
        if model.running:
            return _refused(409, "crops are being answered")
        try:
            model.set(Speed(**json.loads(await request.read())))
        except (TypeError, ValueError) as error:
            return _refused(400, str(error))
        return web.json_response(asdict(model.speed))

    async def chat_completions(request: web.Request) -> web.Response:
        try:
            body = json.loads(await request.read())
            parts = body["messages"][-1]["content"]
            picture = next(part["image_url"]["url"] for part in parts if part["type"] == "image_url")
        except (ValueError, LookupError, TypeError, StopIteration):
            return _refused(400, "not a request with a picture")
        if body.get("model") != name:
            return _refused(404, f"The model `{body.get('model')}` does not exist.")
        tokens = tokens_of(picture)
        return web.json_response(_completion(await model.answer(tokens), tokens, name))

    app.add_routes(
        [
            web.get("/health", health),
            web.get("/v1/models", models),
            web.get("/counters", counters),
            web.post("/speed", speed),
            web.post("/v1/chat/completions", chat_completions),
        ]
    )
    return app


def _completion(text: str, tokens: int, name: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{name}-{OWNER}",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": tokens + 1},
    }


def _refused(status: int, words: str) -> web.Response:
    return web.json_response({"object": "error", "message": words, "code": status}, status=status)


def main() -> None:
    parser = argparse.ArgumentParser(description="A VLM server of set speed. It reads nothing: it models time, not text.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8118)
    parser.add_argument("--model-name", default="PaddleOCR-VL-0.9B", help="the model that it answers for")
    parser.add_argument("--crop-ms", type=float, default=Speed.crop_ms, help="a crop's share of time (default: %(default)g)")
    parser.add_argument("--token-ms", type=float, default=Speed.token_ms, help="and each token's (default: %(default)g)")
    parser.add_argument("--batch", type=int, default=Speed.batch, help="crops side by side (default: %(default)s)")
    options = parser.parse_args()

    async def app() -> web.Application:
        return make_app(Model(Speed(options.crop_ms, options.token_ms, options.batch)), options.model_name)

    print(f"{OWNER}: http://{options.host}:{options.port}/v1", flush=True)
    web.run_app(app(), host=options.host, port=options.port, access_log=None, print=None)


if __name__ == "__main__":
    main()
