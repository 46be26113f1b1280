"""The gateway beside the bare API: real `paddlex --serve` processes, the same requests to both, the same replies."""

from __future__ import annotations

import base64
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pypdfium2
import pytest
import yaml
from gateway_stack import Process, bench, encoded, post, texts
from kit.preview.install import Installation
from kit.preview.overlay import overlay
from PIL import Image
from support import ROOT, SAMPLES, Running, free_port, wait_for

TABLE_FROM, TABLE_TO = 605, 908  # of the invoice, in pixels


class Memory:
    """In front of the preview's VLM: asks it for each picture once. What a page costs is then little, and always the same."""

    def __init__(self, vlm_url: str) -> None:
        self.answers: dict[bytes, bytes] = {}
        memory = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._reply(httpx.get(vlm_url + self.path, trust_env=False, timeout=60).content)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if body not in memory.answers:
                    answer = httpx.post(
                        vlm_url + self.path, content=body, headers=dict(self.headers), trust_env=False, timeout=300
                    )
                    memory.answers[body] = answer.raise_for_status().content
                self._reply(memory.answers[body])

            def _reply(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@dataclass(eq=False)
class Sides:
    """bare: an API as it is. door: the gateway in front of it and of a second one."""

    bare: Process
    door: Process
    parsed: dict[str, tuple[httpx.Response, httpx.Response]] = field(default_factory=dict)

    def ask(
        self, path: str = "/layout-parsing", data: bytes | None = None, **fields: Any
    ) -> tuple[httpx.Response, httpx.Response]:
        """The replies of the bare API and of the gateway."""
        bare, door = (post(side.url, data, path, timeout=300, **fields) for side in (self.bare, self.door))
        return bare, door

    def parse(self, name: str, **options: Any) -> tuple[httpx.Response, httpx.Response]:
        """The same for one of DOCUMENTS; asked once."""
        key = json.dumps([name, options])
        if key not in self.parsed:
            self.parsed[key] = self.ask(data=DOCUMENTS[name](), logId="same", **options)
        return self.parsed[key]


@pytest.fixture(scope="module")
def sides(preview: Running, api_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sides]:
    folder, installation = tmp_path_factory.mktemp("contract"), Installation(ROOT)
    memory = Memory(preview.vlm_url)
    config = overlay(
        yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text()),
        layout_dir=installation.layout_dir, vlm_url=f"{memory.url}/v1",
    )  # fmt: skip
    config["use_queues"] = False  # else each request takes half a second more
    config["SubModules"]["LayoutDetection"]["engine_config"]["intra_op_num_threads"] = 1  # the same sums in the same order
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(config))
    environment = {
        "PADDLE_PDX_CACHE_HOME": str(folder / "paddlex"), "XDG_CACHE_HOME": str(folder / "cache"),
        "PADDLE_PDX_LOCAL_FONT_FILE_PATH": str(installation.font), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    with bench(api_python, folder) as made:
        for number in range(2):
            port = free_port()
            argv = [str(api_python), "-m", "paddlex", "--serve", "--pipeline", str(folder / "pipeline.yaml")]
            argv += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
            log = folder / f"api-{number}.log"
            made.replicas.append(Process(argv, f"http://127.0.0.1:{port}", log, environment).start())
        slow = {"range_seconds": "300", "probe_seconds": "5", "probe_tries": "20", "outage_seconds": "120", "stall_seconds": "60"}
        door = made.gateway(wait=False, pages_per_range="2", **slow)
        up = [f'gateway_replica_up{{replica="{one.url[7:]}"}}' for one in made.replicas]
        wait_for(lambda: door.answers() and all(door.figure(name) for name in up), 180, f"both replicas: {door.log.read_text()}")
        yield Sides(made.replicas[0], door)
    memory.server.shutdown()


def five_pages() -> bytes:
    """One of them with columns, a figure and a table."""
    with pypdfium2.PdfDocument.new() as made:
        for name, pages in (("twelve-pages", [0, 1]), ("paper", [0]), ("twelve-pages", [2, 3])):
            with pypdfium2.PdfDocument(SAMPLES / f"{name}.pdf") as source:
                made.import_pages(source, pages)
        made.save(out := io.BytesIO())
    return out.getvalue()


def table_over_pages(kind: str) -> bytes:
    """The invoice on two pages: the first ends with its table, the second begins with it."""
    with Image.open(SAMPLES / "invoice.png") as invoice:
        whole = invoice.convert("RGB")
    pages = []
    for top, bottom, at in ((0, TABLE_TO, 300), (TABLE_FROM, 1250, 60)):
        page = Image.new("RGB", (whole.width, 1300), "white")
        page.paste(whole.crop((0, top, whole.width, bottom)), (0, at))
        pages.append(page)
    pages[0].save(out := io.BytesIO(), kind, save_all=True, append_images=pages[1:])
    return out.getvalue()


def mixed_tiff() -> bytes:
    """Three pages as scanners write them: grey, black and white, colour and turned by a tag."""
    with pypdfium2.PdfDocument(SAMPLES / "twelve-pages.pdf") as pdf:
        pages = [pdf[number].render(scale=1.5).to_pil() for number in range(3)]
    pages = [pages[0].convert("L"), pages[1].convert("1"), pages[2].convert("RGB")]
    pages[0].save(out := io.BytesIO(), "TIFF", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    return out.getvalue()


DOCUMENTS = {
    "picture": lambda: (SAMPLES / "invoice.png").read_bytes(),
    "PDF of one page": lambda: (SAMPLES / "paper.pdf").read_bytes(),
    "PDF": five_pages,
    "PDF with a table": lambda: table_over_pages("PDF"),
    "TIFF": mixed_tiff,
}
DOCX = {"outputFormats": ["docx"]}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("picture", {}),
    ("picture", {"visualize": True}),
    ("PDF of one page", {"restructurePages": True, **DOCX}),
    ("PDF", {}),
    ("PDF", {"visualize": True}),
    ("PDF", {"restructurePages": True, "prettifyMarkdown": False, "returnMarkdownImages": False}),
    ("PDF", {"formatBlockContent": True, "restructurePages": True, "mergeLayoutBlocks": False, "markdownIgnoreLabels": []}),
    ("PDF", DOCX),
    ("PDF", {"restructurePages": True, "returnMarkdownImages": False, **DOCX}),
    ("PDF with a table", {}),
    ("PDF with a table", {"restructurePages": True}),
    ("PDF with a table", {"restructurePages": True, "mergeTables": False}),
    ("PDF with a table", {"restructurePages": True, "relevelTitles": False}),
    ("PDF with a table", {"restructurePages": True, **DOCX}),
    ("PDF with a table", {"prettifyMarkdown": False, "returnMarkdownImages": False}),
    ("TIFF", {}),
    ("TIFF", {"visualize": True, "restructurePages": True}),
]


def content(reply: httpx.Response) -> Any:
    """A reply to compare: Word documents by what is in them, as their names are made of the time; all else as it came."""
    found = reply.json()
    for page in found["result"]["layoutParsingResults"] if reply.status_code == 200 else ():
        for export in (page.get("exports") or {}).values():
            assert export.pop("fileName").endswith(".docx")
            archive = zipfile.ZipFile(io.BytesIO(base64.b64decode(export["content"])))
            export["content"] = {
                name: size(archive.read(name)) if name.endswith(".jpg") else archive.read(name)
                for name in archive.namelist()
                if name != "docProps/core.xml"  # the time
            }
    return found


def size(picture: bytes) -> tuple[int, int]:
    """With restructurePages a picture becomes a JPEG once more, as in upstream's /restructure-pages; it is the same one."""
    with Image.open(io.BytesIO(picture)) as image:
        return image.size


def differences(bare: Any, door: Any, where: str = "") -> Iterator[str]:
    """Each field that is not the same on both sides, with its path."""
    if isinstance(bare, dict) and isinstance(door, dict) and bare.keys() == door.keys():
        for name in bare:
            yield from differences(bare[name], door[name], f"{where}.{name}")
    elif isinstance(bare, list) and isinstance(door, list) and len(bare) == len(door):
        for number, pair in enumerate(zip(bare, door, strict=True)):
            yield from differences(*pair, f"{where}[{number}]")
    elif type(bare) is not type(door) or bare != door:
        yield f"{where}: {str(bare)[:200]} | {str(door)[:200]}"


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=lambda value: value if isinstance(value, str) else json.dumps(value))
def test_replies_are_the_same(sides: Sides, name: str, options: dict[str, Any]) -> None:
    bare, door = sides.parse(name, **options)
    assert (bare.status_code, door.status_code) == (200, 200), (bare.text[:500], door.text[:500])
    assert list(differences(content(bare), content(door))) == []
    assert all(texts(door))
    if "outputFormats" in options:
        assert all(page["exports"]["docx"]["content"] for page in door.json()["result"]["layoutParsingResults"])


def test_a_table_over_two_pages_becomes_one(sides: Sides) -> None:
    _, joined = sides.parse("PDF with a table", restructurePages=True)
    _, apart = sides.parse("PDF with a table", restructurePages=True, mergeTables=False)
    assert ["".join(texts(reply)).count("<table") for reply in (apart, joined)] == [2, 1]


def test_the_default_reply_is_a_tenth_of_upstreams(sides: Sides) -> None:
    upstream, _ = sides.parse("PDF", visualize=True)  # PaddleX's default
    _, ours = sides.parse("PDF")
    assert texts(ours) == texts(upstream)
    assert len(ours.content) <= 0.1 * len(upstream.content)


@pytest.mark.parametrize(
    "options",
    [{}, {"concatenatePages": True}, {"mergeTables": False, "relevelTitles": False}, {"concatenatePages": True, **DOCX},
     {"returnMarkdownImages": False, "prettifyMarkdown": False, **DOCX}],
    ids=json.dumps,
)  # fmt: skip
def test_pages_are_put_together_alike(sides: Sides, options: dict[str, Any]) -> None:
    parsed = sides.parse("PDF with a table")[1].json()["result"]["layoutParsingResults"]
    pages = [{"prunedResult": page["prunedResult"], "markdownImages": page["markdown"]["images"]} for page in parsed]
    bare, door = sides.ask("/restructure-pages", pages=pages, logId="same", **options)
    assert (bare.status_code, door.status_code) == (200, 200), (bare.text[:500], door.text[:500])
    assert list(differences(content(bare), content(door))) == []
    assert len(texts(door)) == (1 if options.get("concatenatePages") else 2)


@pytest.mark.parametrize(
    "fields",
    [{}, {"file": "", "fileType": 1}, {"file": "!", "fileType": 1}, {"file": encoded(b"random"), "fileType": 1},
     {"file": encoded(b"%PDF-1.4 corrupt"), "fileType": 0}, {"file": encoded(b"x"), "fileType": 2},
     {"file": encoded(b"x")}, {"file": "QUJD", "fileType": 1, "promptLabel": "poem"}],
    ids=json.dumps,
)  # fmt: skip
def test_errors_have_the_same_status_and_shape(sides: Sides, fields: dict[str, Any]) -> None:
    bare, door = sides.ask(**fields, logId="mine")
    assert bare.status_code == door.status_code == bare.json()["errorCode"] == door.json()["errorCode"] == 422
    assert set(bare.json()) == set(door.json())
    assert door.json()["logId"] == "mine"
