#!/usr/local/bin/python3
"""STUB of `paddlex --serve`: the real command line, paths and reply shapes; it reads no document.

/layout-parsing asks the VLM server that the pipeline config names for one
completion and returns its text, so a test sees that the two are wired together.
"""

import argparse
import hashlib
import json
import re
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser(prog="paddlex (STUB)")
parser.add_argument("--serve", action="store_true", required=True)
parser.add_argument("--pipeline", type=Path, required=True)
parser.add_argument("--host", required=True)
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--device")
arguments = parser.parse_args()
UNWELL = Path("/dev/shm/stub-unwell")  # while it exists, /health answers 503
UNWELL.unlink(missing_ok=True)

config = arguments.pipeline.read_bytes()
# The image has no YAML parser; these two keys are all that the stub needs.
server_url = re.search(r"^ *server_url: *(\S+)", config.decode(), re.MULTILINE).group(1)
model = re.search(r"VLRecognition:.*?^ *model_name: *(\S+)", config.decode(), re.MULTILINE | re.DOTALL).group(1)


def ask_vlm():
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": [{"type": "text", "text": "OCR:"}]}]}).encode()
    request = urllib.request.Request(f"{server_url}/chat/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)["choices"][0]["message"]["content"]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer(503 if UNWELL.exists() else 200, {"logId": "stub", "errorCode": 0, "errorMsg": "Healthy"})
        else:
            self.answer(404, {"logId": "stub", "errorCode": 404, "errorMsg": "Not Found"})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        try:
            page = {"prunedResult": {"parsing_res_list": []}, "markdown": {"text": ask_vlm(), "images": {}}, "outputImages": None}
            result = {"layoutParsingResults": [page], "dataInfo": {"type": "image", "width": 1, "height": 1}}
            self.answer(200, {"logId": "stub", "errorCode": 0, "errorMsg": "Success", "result": result})
        except OSError as error:
            print(f"Exception from the 'vlm' worker: {error}", flush=True)
            self.answer(500, {"logId": "stub", "errorCode": 500, "errorMsg": "Internal server error"})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


print(f"STUB of paddlex --serve, pipeline config sha256 {hashlib.sha256(config).hexdigest()}", flush=True)
ThreadingHTTPServer((arguments.host, arguments.port), Handler).serve_forever()
