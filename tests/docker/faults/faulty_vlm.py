"""A FAULTY VLM server for tests: the CPU preview's own behind a door that breaks on command.

Forwards everything to the real stand-in server. While /dev/shm/fault holds a word, completions go wrong:

    500      an error of the server
    garbage  200, and a body that is no JSON
    half     the head promises the whole body, half of it comes, the connection is closed
    empty    a completion without text
    silence  no answer until the file is gone; then the connection is closed
    refuse   the port is closed, the process lives
"""

import http.client
import json
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAULT = Path("/dev/shm/fault")
REAL = ("127.0.0.1", 8119)
COMMAND = [sys.executable, "-m", "kit.preview.vlm.server", "--host", REAL[0], "--port", str(REAL[1]),
           "--table-model", "/opt/kit/models/en_ppstructure_mobile_v2_SLANet.onnx"]  # fmt: skip


def fault() -> str:
    return FAULT.read_text().strip() if FAULT.exists() else ""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send(*self.forward(None))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        match fault():
            case "500":
                self.send(500, json.dumps({"error": {"message": "CUDA error: unspecified launch failure", "code": 500}}).encode())
            case "garbage":
                self.send(200, b"\x00\xff no JSON \x1b[0m")
            case "half":
                status, answer = self.forward(body)
                self.send(status, answer, answer[: len(answer) // 2])
            case "empty":
                status, answer = self.forward(body)
                whole = json.loads(answer)
                whole["choices"][0]["message"]["content"] = ""
                self.send(status, json.dumps(whole).encode())
            case "silence":
                while fault() == "silence":
                    time.sleep(0.1)
                self.close_connection = True
            case "refuse":  # connections from before are not served either
                self.close_connection = True
            case _:
                self.send(*self.forward(body))

    def forward(self, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*REAL, timeout=600)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(self.command, self.path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except ConnectionError:
            return 503, b"{}"
        finally:
            connection.close()

    def send(self, status: int, whole: bytes, part: bytes | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole if part is None else part)
        self.close_connection = self.close_connection or part is not None

    def log_message(self, *words: object) -> None:
        pass


def main() -> None:
    FAULT.unlink(missing_ok=True)  # /dev/shm may outlive a restart
    real = subprocess.Popen(COMMAND)
    server = ThreadingHTTPServer(("0.0.0.0", 8118), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while real.poll() is None:
        if fault() == "refuse":
            server.shutdown()
            server.server_close()
            break
        time.sleep(0.1)
    sys.exit(real.wait())


if __name__ == "__main__":
    main()
