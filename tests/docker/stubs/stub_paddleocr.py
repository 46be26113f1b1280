#!/usr/local/bin/python3
"""STUB of `paddleocr genai_server`: the real command line and OpenAI paths; every completion is the same text."""

import argparse
import hashlib
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LOADING_SECONDS = float(os.environ.get("STUB_LOADING_SECONDS", "2"))  # so that a start in the wrong order is seen
UNWELL = Path("/dev/shm/stub-unwell")  # while it exists, /health answers 503
UNWELL.unlink(missing_ok=True)
TEXT = "# A stub's answer\n\nNo document was read."

parser = argparse.ArgumentParser(prog="paddleocr (STUB)")
parser.add_argument("verb", choices=["genai_server"])
parser.add_argument("--model_name", required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--backend", required=True)
parser.add_argument("--backend_config", type=Path, required=True)
arguments = parser.parse_args()
config = arguments.backend_config.read_bytes()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer(503 if UNWELL.exists() else 200, {})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [{"id": arguments.model_name, "object": "model", "owned_by": "stub"}]})
        else:
            self.answer(404, {"detail": "Not Found"})

    def do_POST(self):
        model = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        if model != arguments.model_name:
            self.answer(404, {"error": {"message": f"The model `{model}` does not exist.", "type": "NotFoundError", "code": 404}})
        else:
            self.answer(200, {"object": "chat.completion", "model": model, "choices": [
                {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}]})  # fmt: skip

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


print(f"STUB of paddleocr genai_server, backend config sha256 {hashlib.sha256(config).hexdigest()}", flush=True)
time.sleep(LOADING_SECONDS)
ThreadingHTTPServer((arguments.host, arguments.port), Handler).serve_forever()
