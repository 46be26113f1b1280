"""The stand-in for the VLM server: what PaddleX's client sees of vLLM's OpenAI server, without a GPU.

    python -m kit.preview.vlm.server --port 8118 --model-name PaddleOCR-VL-0.9B --table-model SLANet.onnx

It reads with small OCR models (PP-OCRv6 small, SLANet) and says so: in its start
line, in the model list and in the `model` of every reply.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import queue
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from kit.preview.vlm.prompts import PROMPTS, Recognizer, recognizers
from kit.preview.vlm.request import BadRequest, ChatRequest, cut_to_tokens, decode_picture, parse, token_count

OWNER = "cpu-preview-standin"
MAX_WAITING = 1024  # PaddleX's client sends at most 200 at once
STOP_WITHIN = 2  # seconds that requests in progress get after SIGTERM
MODELS_USED = "PP-OCRv6 small for text, SLANet for tables"


class QueueFull(Exception):
    """As many requests as allowed are waiting already."""


class Pool:
    """One thread for each recognizer, and a bounded line of requests in front of them."""

    def __init__(self, workers: Sequence[Recognizer], max_waiting: int = MAX_WAITING) -> None:
        self._idle: queue.SimpleQueue[Recognizer] = queue.SimpleQueue()
        for worker in workers:
            self._idle.put(worker)
        self._threads = ThreadPoolExecutor(len(workers), thread_name_prefix="recognizer")
        self._free = asyncio.Semaphore(len(workers))
        self._max_waiting = max_waiting
        self._waiting = 0

    async def answer(self, wanted: ChatRequest, client: Request) -> str | None:
        """The reply's text; None when the client left before its turn, and nothing was computed.

        Raises QueueFull when too many wait already, BadRequest for a
        picture that cannot be decoded.
        """
        if self._waiting >= self._max_waiting:
            raise QueueFull
        self._waiting += 1
        try:
            # uvicorn stops reading from a client after a large body and so would
            # not notice that it has gone; asking makes it read on.
            await client.is_disconnected()
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            if await client.is_disconnected():
                return None
            return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, wanted)
        finally:
            self._free.release()

    def _work(self, wanted: ChatRequest) -> str:
        picture = decode_picture(wanted.image_url)
        worker = self._idle.get()
        try:
            return worker.answer(wanted.prompt, picture)
        finally:
            self._idle.put(worker)


def make_app(pool: Pool, model_name: str) -> FastAPI:
    """The server's routes. model_name: the one model that it answers for."""
    app = FastAPI(title="PaddleOCR-VL Kit: CPU preview of the VLM server", docs_url=None, redoc_url=None)
    started = int(time.time())

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        model = {"id": model_name, "object": "model", "created": started, "owned_by": OWNER, "root": MODELS_USED}
        return {"object": "list", "data": [model]}

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> JSONResponse:
        try:
            wanted = parse(await request.body(), model_name=model_name, prompts=PROMPTS)
            text = await pool.answer(wanted, request)
        except BadRequest as error:
            return JSONResponse(error.body(), error.status)
        except QueueFull:
            error = BadRequest("too many requests are waiting; try again later", 429, "TooManyRequestsError")
            return JSONResponse(error.body(), error.status)
        if text is None:  # nobody is there to read it; nginx's status for that
            return JSONResponse(None, 499)
        return JSONResponse(completion(wanted, text))

    return app


def completion(wanted: ChatRequest, text: str) -> dict[str, Any]:
    """The reply as OpenAI's chat.completion; its `model` says who really answered."""
    content, was_cut = cut_to_tokens(text, wanted.max_tokens)
    prompt_tokens, completion_tokens = token_count(wanted.prompt), token_count(content)
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{wanted.model}-{OWNER}",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "length" if was_cut else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
        },
    }


def default_workers() -> int:
    """One for each core that this process may use, at most 4: each takes up to 250 MB."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        cores = os.cpu_count() or 1
    return min(cores, 4)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kit.preview.vlm.server", description="CPU stand-in for PaddleOCR-VL's VLM server."
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8118)
    parser.add_argument("--model-name", default="PaddleOCR-VL-0.9B", help="the model that it answers for")
    parser.add_argument("--table-model", type=Path, help="SLANet's ONNX; without it tables are read by alignment")
    parser.add_argument("--workers", type=_at_least_one, default=default_workers(), help="recognizers (default: one a core)")
    parser.add_argument("--max-waiting", type=_at_least_one, default=MAX_WAITING, help="waiting requests before 429")
    options = parser.parse_args(arguments)
    print(
        f"CPU preview of {options.model_name}: small stand-in models ({MODELS_USED}), not PaddleOCR-VL's accuracy; "
        f"{options.workers} workers, http://{options.host}:{options.port}/v1",
        flush=True,
    )
    if options.table_model and not options.table_model.is_file():
        print(f"error: no such file: {options.table_model}", file=sys.stderr)
        return 1
    # Before the port opens: whoever sees /health answer finds every model loaded.
    workers = recognizers(options.workers, options.table_model)
    app = make_app(Pool(workers, options.max_waiting), options.model_name)
    uvicorn.run(app, host=options.host, port=options.port, access_log=False, timeout_graceful_shutdown=STOP_WITHIN)
    return 0


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
