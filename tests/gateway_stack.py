"""The gateway as a real process, in front of fake replicas (fakes/fake_replica.py) or of real ones."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from support import ROOT, free_port, wait_for

QUICK = {
    "probe-seconds": "1", "probe-tries": "3", "range-seconds": "20", "page-seconds": "1", "outage-seconds": "2",
    "stall-seconds": "3", "header-seconds": "3", "stop-seconds": "10", "splitters": "1",
}  # fmt: skip


@dataclass
class Process:
    """One process of a test; its output goes to a file."""

    argv: list[str]
    url: str
    log: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> Process:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "GATEWAY_")) and k.lower() != "http_proxy"}
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.argv, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env=kept | {"PYTHONPATH": str(ROOT / "scripts")} | self.environment,
            )  # fmt: skip
        return self

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def wait(self, seconds: float) -> int:
        assert self.process is not None
        return self.process.wait(seconds)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def answers(self, path: str = "/health") -> bool:
        try:
            return httpx.get(self.url + path, timeout=2, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def in_service(self) -> list[str]:
        """Names of the replicas that this gateway uses."""
        states = httpx.get(f"{self.url}/ready", timeout=10, trust_env=False).json()["replicas"]
        return [one["name"] for one in states if one["state"] == "up"]

    def figure(self, name: str) -> float:
        """One of a gateway's figures, 0 where it has none of that name; labels belong to the name."""
        text = httpx.get(f"{self.url}/metrics", timeout=10, trust_env=False).text
        return next((float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} ")), 0.0)

    def set(self, **behaviour: Any) -> None:
        """Of a fake replica."""
        httpx.post(f"{self.url}/fake", json=behaviour, trust_env=False).raise_for_status()

    def seen(self) -> list[dict[str, Any]]:
        """Requests that a fake replica has got, the proving ones of the gateway left out."""
        got = httpx.get(f"{self.url}/fake", trust_env=False).json()["seen"]
        return [fields for fields in got if "logId" in fields]


@dataclass
class Bench:
    """A gateway with what stands behind it. Started by `gateway`, ended by `bench`."""

    python: Path
    folder: Path
    replicas: list[Process] = field(default_factory=list)
    vlm: Process | None = None
    doors: list[Process] = field(default_factory=list)

    def fake(self, seconds: float = 0.0, host: str = "127.0.0.1", port: int = 0) -> Process:
        port = port or free_port()
        argv = [str(self.python), str(ROOT / "tests/fakes/fake_replica.py"), "--host", host, "--port", str(port)]
        argv += ["--seconds", str(seconds)]
        if self.vlm is not None:
            argv += ["--vlm", self.vlm.url]
        fake = Process(argv, f"http://{host}:{port}", self.folder / f"replica-{host}-{port}.log").start()
        self.replicas.append(fake)
        return fake

    def fake_vlm(self) -> Process:
        """It is a fake replica too: all that counts is whether its /health answers."""
        self.vlm = self.fake()
        self.replicas.remove(self.vlm)
        return self.vlm

    def gateway(
        self, *urls: str, wait: bool = True, port: int = 0, environment: dict[str, str] | None = None, names: Path | None = None,
        **flags: str,
    ) -> Process:
        """Start a gateway for the given replicas, or all; wait until it is ready and uses them all.

        names: a file of lines `ADDRESS NAME`, from which names are looked up; the replicas are told by `discover` then.
        """
        port = port or free_port()
        program = [str(ROOT / "tests/fakes/gateway_with_names.py"), str(names)] if names else ["-m", "kit.gateway"]
        argv = [str(self.python), *program, "--port", str(port)]
        for url in urls or [replica.url for replica in self.replicas if not names]:
            argv += ["--replica", url]
        if self.vlm is not None:
            argv += ["--vlm", f"{self.vlm.url}/v1"]
        for name, value in (QUICK | {key.replace("_", "-"): value for key, value in flags.items()}).items():
            argv += [f"--{name}", value]
        scheme = "https" if "tls_key" in flags else "http"
        log = self.folder / f"gateway-{port}-{len(self.doors)}.log"
        door = Process(argv, f"{scheme}://127.0.0.1:{port}", log, environment or {}).start()
        self.doors.append(door)
        if wait:
            known = len(urls or self.replicas)
            wait_for(lambda: door.answers("/ready") and len(door.in_service()) == known, 60, f"the gateway; its log is {log}")
        return door


@contextlib.contextmanager
def bench(python: Path, folder: Path) -> Iterator[Bench]:
    made = Bench(python, folder)
    try:
        yield made
    finally:
        for process in (*made.doors, *made.replicas, *([made.vlm] if made.vlm else [])):
            process.send(signal.SIGCONT)
            process.kill()


def make_pdf(texts: list[str], size: tuple[int, int] = (500, 200), padding: int = 0) -> bytes:
    """A PDF with one short line of text on each page (Helvetica, no compression).

    size: of a page, in points. padding: bytes that belong to no page.
    """
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"", b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in texts:
        stream = b"BT /F1 24 Tf 40 100 Td (%s) Tj ET" % text.encode("ascii")
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
        kids.append(len(objects) + 1)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R /Resources << /Font << /F1 3 0 R >> >> >>"
            % (*size, len(objects))
        )
    objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (padding, b"x" * padding))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(b"%d 0 R" % kid for kid in kids), len(kids))
    return assemble(objects)


def assemble(objects: list[bytes]) -> bytes:
    """A PDF of objects 1, 2, …; the first is the catalogue."""
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    return body + head + table + b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(body))


def make_picture(colour: tuple[int, int, int] = (1, 2, 3), kind: str = "PNG", size: tuple[int, int] = (40, 30)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, kind)
    return out.getvalue()


def make_tiff(colours: list[tuple[int, int, int]]) -> bytes:
    out = io.BytesIO()
    first, *others = [Image.new("RGB", (40, 30 + number), colour) for number, colour in enumerate(colours)]
    first.save(out, "TIFF", save_all=True, append_images=others)
    return out.getvalue()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def post(
    url: str, data: bytes | None = None, path: str = "/layout-parsing", timeout: float = 60, **fields: Any
) -> httpx.Response:
    """One request; `fileType` is told from the data where the test does not give it."""
    if data is not None:
        fields = {"file": encoded(data), "fileType": 0 if data[:5] == b"%PDF-" else 1} | fields
    return httpx.post(url + path, json=fields, timeout=timeout, trust_env=False)


def texts(reply: httpx.Response) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [page["markdown"]["text"] for page in reply.json()["result"]["layoutParsingResults"]]


def cause(reply: httpx.Response) -> tuple[int, str]:
    """Status and cause of a refusal, whose shape is upstream's."""
    body = reply.json()
    assert set(body) == {"logId", "errorCode", "errorMsg"} and body["errorCode"] == reply.status_code, body
    assert body["logId"] and body["errorMsg"]
    return reply.status_code, reply.headers["X-Gateway-Cause"]
