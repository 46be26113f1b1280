"""The viewer in a real browser: a service whose replies the test sets, and a page that watches what the browser does."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pypdfium2
from gateway_stack import make_pdf
from kit.view import Viewer
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page

_PDFIUM = threading.Lock()  # PDFium is not made for threads
Reply = tuple[int, dict[str, Any], dict[str, str]]  # status, body, further headers
# What the browser refuses because of the page's policy is told to whoever listens; errors of scripts too.
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", ({violatedDirective, blockedURI}) =>
    violations.push(`${violatedDirective} ${blockedURI}`));
"""


def picture(kind: str = "JPEG", size: tuple[int, int] = (60, 40)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(out, kind)
    return out.getvalue()


def block(label: str, content: str, bbox: list[Any], number: int = 0) -> dict[str, Any]:
    return {"block_label": label, "block_content": content, "block_bbox": bbox, "block_id": number, "block_order": number + 1}


def result(
    text: str, blocks: list[dict[str, Any]], images: dict[str, str] | None = None, size: tuple[int, int] = (500, 200)
) -> dict[str, Any]:
    """One of `layoutParsingResults`."""
    settings = {"use_doc_preprocessor": False, "use_layout_detection": True}
    width, height = size
    pruned = {"page_count": None, "width": width, "height": height, "model_settings": settings, "parsing_res_list": blocks}
    return {"prunedResult": pruned, "markdown": {"text": text, "images": images or {}}}


def success(*pages: dict[str, Any]) -> Reply:
    found = {"layoutParsingResults": list(pages), "dataInfo": {"numPages": len(pages), "pages": [{}] * len(pages)}}
    return 200, {"logId": "log-1", "errorCode": 0, "errorMsg": "Success", "result": found}, {}


def refused(status: int, message: str, **headers: str) -> Reply:
    return status, {"logId": "log-7", "errorCode": status, "errorMsg": message}, headers


def pages_of(request: dict[str, Any]) -> list[str]:
    """The text of each page of a PDF that was sent: a wrong page, or one too many, shows."""
    with _PDFIUM:
        pdf = pypdfium2.PdfDocument(base64.b64decode(request["file"]))
        texts = [pdf[number].get_textpage().get_text_range().strip() for number in range(len(pdf))]
        pdf.close()  # with all its pages, before another thread has its turn
    return texts


def as_read(path: str, request: dict[str, Any]) -> Reply:
    """What a good service says: of each page of a PDF its text."""
    if request["fileType"] != 0:
        return success(result("a picture", [block("text", "a picture", [10, 10, 300, 60])]))
    return success(*[result(f"## {text}", [block("paragraph_title", text, [30, 70, 260, 130])]) for text in pages_of(request)])


JPEG = base64.b64encode(picture()).decode()
NAME = "imgs/img_in_image_box_300_20_480_140.jpg"
BLOCKS = [
    block("doc_title", "Invoice No. 7", [20, 10, 250, 40], 0),
    block("text", "Pay within 30 days.", [20, 60, 250, 80], 1),
    block("image", "", [300, 20, 480, 140], 2),
    block("table", "<table><tr><td>Widget</td><td>7.50</td></tr></table>", [20, 100, 280, 160], 3),
    block("display_formula", " $$ E = mc^2 $$ ", [20, 165, 200, 180], 4),
    block("footer", "page 1 of 1", [20, 185, 200, 195], 5),
]
MARKDOWN = (
    "# Invoice No. 7\n\nPay within 30 days.\n\n"
    f'<div style="text-align: center;"><img src="{NAME}" alt="Image" width="36%" /></div>\n\n'
    "<table border=1 style='margin: auto;'><tr><td>Widget</td><td>7.50</td></tr></table>\n\n $$ E = mc^2 $$ \n"
)
SAMPLE = result(MARKDOWN, BLOCKS, {NAME: JPEG})
THREE = make_pdf(["first page", "second page", "third page"])


@dataclass
class Service:
    """A service. answer: (path, request) → reply, as the test sets it; seen: what it has got, without `file`."""

    answer: Callable[[str, dict[str, Any]], Reply] = as_read
    seen: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""

    def forget(self) -> None:
        """Be as new, for the next test."""
        self.answer = as_read
        self.seen.clear()
        self.keys.clear()


@contextmanager
def served() -> Iterator[tuple[Service, str]]:
    """A service, and the address of ./kit view's server in front of it."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.keys.append(self.headers["Authorization"])
            service.seen.append({"path": self.path, **{name: value for name, value in request.items() if name != "file"}})
            status, body, headers = service.answer(self.path, request)
            data = json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    back = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    back.daemon_threads = True
    service.url = f"http://127.0.0.1:{back.server_port}"
    front = Viewer(service.url)
    for server in (back, front):
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield service, front.url
    finally:
        for server in (front, back):
            server.shutdown()
            server.server_close()


@dataclass
class Watched:
    """A page of the browser, and all that it has asked for and complained about."""

    page: Page
    origin: str
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def drop_in(self, name: str, data: bytes, kind: str = "application/pdf") -> None:
        """Choose a file, as the button does."""
        self.page.set_input_files("#file", {"name": name, "mimeType": kind, "buffer": data})

    def wait_done(self, start: str = "Done") -> str:
        """The status line, once the document is read."""
        self.page.wait_for_function("start => document.querySelector('#status').textContent.startsWith(start)", arg=start)
        return self.page.inner_text("#status")

    def violations(self) -> list[str]:
        return self.page.evaluate("window.violations")

    def foreign(self) -> list[str]:
        """Requests to anywhere but the page's own origin."""
        return [url for url in self.requests if not url.startswith((self.origin, f"blob:{self.origin}"))]

    def downloaded(self, button: str, folder: Path) -> Path:
        with self.page.expect_download() as waiting:
            self.page.click(button)
        path = folder / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path


@contextmanager
def profile(browser: Browser, **options: Any) -> Iterator[BrowserContext]:
    """A user of the browser: cache and permissions. options: of playwright's `new_context`."""
    context = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1200, "height": 800}, **options})
    context.set_default_timeout(15_000)
    context.add_init_script(WATCH)
    yield context
    context.close()


@contextmanager
def opened(context: BrowserContext, url: str) -> Iterator[Watched]:
    """The viewer in a tab of its own. Afterwards: no script failed, nothing foreign was asked for, no policy was hit."""
    page = context.new_page()
    found = Watched(page, url.rstrip("/"))
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("pageerror", lambda error: found.errors.append(str(error)))
    page.on("dialog", lambda dialog: (found.dialogs.append(dialog.message), dialog.dismiss()))
    try:
        page.goto(url)
        page.wait_for_selector("html[data-ready]", state="attached")
        yield found
        complaints = [*found.errors, *found.dialogs, *found.foreign(), *found.violations()]
        assert complaints == [], complaints
    finally:
        page.close()


@contextmanager
def watched(browser: Browser, url: str, **options: Any) -> Iterator[Watched]:
    """The viewer, opened by a user of its own."""
    with profile(browser, **options) as context, opened(context, url) as found:
        yield found


def read_sample(found: Watched, service: Service) -> None:
    service.answer = lambda path, request: success(SAMPLE)
    found.drop_in("invoice.png", picture("PNG", (500, 200)), "image/png")
    assert found.wait_done() == "Done: 1 of 1 pages."
