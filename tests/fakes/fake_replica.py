"""A fake of one `paddlex --serve` for tests of the gateway: its contract and its faults, no model.

It reads one document at a time like PaddleX, and truly: the Markdown of a page of a PDF is that page's text
layer, so that a wrong, missing or doubled page shows. Blocks are made up. POST /fake sets its behaviour,
GET /fake tells what it has got. Runs on what the API's environment has.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import uuid
from typing import Any

import aiohttp
import pypdfium2
from aiohttp import web
from PIL import Image


class Fake:
    def __init__(self, vlm: str, seconds: float) -> None:
        self.vlm, self.seconds = vlm, seconds
        self.mode = ""  # see `answer`
        self.padding = 0  # bytes of a picture in each page
        self.times = -1  # how many requests the mode is for; -1: all
        self.lock = asyncio.Lock()
        self.seen: list[dict[str, Any]] = []

    async def control(self, request: web.Request) -> web.Response:
        for name, value in (await request.json()).items():
            setattr(self, name, value)
        return web.json_response({})

    async def tell(self, _: web.Request) -> web.Response:
        return web.json_response({"seen": self.seen})

    async def health(self, _: web.Request) -> web.Response:
        if self.mode == "deaf":
            await asyncio.sleep(3600)
        return web.json_response({"logId": str(uuid.uuid4()), "errorCode": 0, "errorMsg": "Healthy"})

    async def parse(self, request: web.Request) -> web.StreamResponse:
        fields = await request.json()
        self.seen.append({name: value for name, value in fields.items() if name != "file"})
        # What has begun is finished, whether or not anybody waits: as in PaddleX.
        return await asyncio.shield(self.answer(fields, request))

    async def answer(self, fields: dict[str, Any], request: web.Request) -> web.StreamResponse:
        async with self.lock:
            mode = self.mode if self.times else ""
            self.times -= 1 if self.times > 0 else 0
            if mode == "hang":
                await asyncio.sleep(3600)
            if mode == "drop":
                assert request.transport is not None
                request.transport.close()
            if mode == "html":
                return web.Response(text="<html>", content_type="text/html")
            if mode == "not-loaded":
                return refused(fields, 500, "the input params for model settings are invalid!")
            if mode == "500" or not await self.vlm_reads():
                return refused(fields, 500, "Internal server error")
            try:
                texts, info = read(fields)
            except Exception:
                return refused(fields, 422, "Invalid input file")
            await asyncio.sleep(self.seconds * len(texts))
            if mode == "cut":
                texts = texts[:-1]
            pages = [page("" if mode == "empty" else text, "A" * self.padding) for text in texts]
            result = {"layoutParsingResults": pages, "dataInfo": info}
            return reply(
                {"logId": fields.get("logId") or str(uuid.uuid4()), "result": result, "errorCode": 0, "errorMsg": "Success"}
            )

    async def restructure(self, request: web.Request) -> web.Response:
        fields = await request.json()
        self.seen.append({**fields, "pages": len(fields["pages"])})
        if self.mode == "500":
            return refused(fields, 500, "Internal server error")
        pages = []
        for number, one in enumerate(fields["pages"], 1):
            text = f"[{number} of {len(fields['pages'])}] {one['prunedResult']['parsing_res_list'][0]['block_content']}"
            pages.append({"prunedResult": one["prunedResult"], "markdown": {"text": text, "images": {}}})
        if fields.get("concatenatePages"):
            pages = [{**pages[0], "markdown": {"text": "\n".join(one["markdown"]["text"] for one in pages), "images": {}}}]
        return reply(
            {"logId": fields.get("logId"), "result": {"layoutParsingResults": pages}, "errorCode": 0, "errorMsg": "Success"}
        )

    async def vlm_reads(self) -> bool:
        if not self.vlm:
            return True
        try:
            timeout = aiohttp.ClientTimeout(total=60)
            async with aiohttp.ClientSession() as session, session.get(f"{self.vlm}/health", timeout=timeout) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False


def read(fields: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """The text of each page and `dataInfo`; of a picture its size, or its name where the test has put one in."""
    data = base64.b64decode(fields["file"])
    if fields["fileType"] == 0:
        pdf = pypdfium2.PdfDocument(data)
        texts = [one.get_textpage().get_text_range() for one in pdf]
        sizes = [dict(zip(("width", "height"), map(round, one.get_size()), strict=True)) for one in pdf]
        return texts, {"numPages": len(texts), "pages": sizes, "type": "pdf"}
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        colour = image.convert("RGB").getpixel((0, 0))
        return [f"picture {colour}"], {"width": image.width, "height": image.height, "type": "image"}


def page(text: str, picture: str = "") -> dict[str, Any]:
    block = {"block_label": "text", "block_content": text, "block_bbox": [0, 0, 9, 9], "block_id": 0, "block_order": 1}
    settings = {"use_doc_preprocessor": False, "use_layout_detection": True}
    pruned = {"page_count": None, "width": 10, "height": 10, "model_settings": settings, "parsing_res_list": [block]}
    return {"prunedResult": pruned, "markdown": {"text": text, "images": {"picture": picture} if picture else {}}}


def reply(body: dict[str, Any], status: int = 200) -> web.Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(text=text, status=status, content_type="application/json")


def refused(fields: dict[str, Any], status: int, message: str) -> web.Response:
    return reply({"logId": fields.get("logId") or str(uuid.uuid4()), "errorCode": status, "errorMsg": message}, status)


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--vlm", default="", help="its /health has to answer for a page to be read")
    arguments.add_argument("--seconds", type=float, default=0.0, help="for a page")
    given = arguments.parse_args()
    fake = Fake(given.vlm, given.seconds)
    app = web.Application(client_max_size=2**30)
    app.add_routes([web.get("/health", fake.health), web.post("/layout-parsing", fake.parse), web.get("/fake", fake.tell)])
    app.add_routes([web.post("/restructure-pages", fake.restructure), web.post("/fake", fake.control)])
    web.run_app(app, host=given.host, port=given.port, print=None, shutdown_timeout=60)


if __name__ == "__main__":
    main()
