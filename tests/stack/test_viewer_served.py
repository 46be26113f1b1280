"""The viewer where it really stands: at our gateway, and in front of the real paddlex --serve of the CPU preview."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import httpx
from gateway_stack import bench, make_pdf
from kit.gateway import pages
from kit.view import Viewer
from playwright.sync_api import Browser, expect
from support import SAMPLES, Running, wait_for
from viewer_stack import watched

KEY = "the-key-of-this-test-0123"


def test_the_gateway_serves_the_page_to_everybody_and_reads_for_who_has_a_key(
    browser: Browser, api_python: Path, tmp_path: Path
) -> None:
    with bench(api_python, tmp_path) as stand:
        stand.fake()
        door = stand.gateway(environment={"GATEWAY_API_KEYS": KEY}, wait=False)
        wait_for(lambda: door.answers("/ready"), 60, f"the gateway; its log is {door.log}")
        with httpx.Client(base_url=door.url, trust_env=False) as client:
            for path in ("/", "/viewer/app.js", "/viewer/vendor/katex/fonts/KaTeX_Main-Regular.woff2"):
                reply = client.get(path)
                assert reply.status_code == 200 and reply.headers["Content-Security-Policy"] == pages.POLICY, path
                again = client.get(path, headers={"If-None-Match": reply.headers["ETag"]})
                assert (again.status_code, again.content) == (304, b"")
                assert client.head(path).headers["Content-Length"] == str(len(reply.content))
                refused = client.post(path, json={})
                assert (refused.status_code, refused.headers["Allow"]) == (405, "GET, HEAD")
            for path in ("/viewer/", "/viewer/index.html", "/viewer/../auth.py", "/viewer/%2e%2e/auth.py", "/index.html"):
                assert client.get(path).status_code == 404, path
            assert client.get("/openapi.json").status_code == 401

        with watched(browser, door.url + "/") as found:
            page = found.page
            page.click("#options summary")
            expect(page.locator("#options-note")).to_contain_text("once the API key is there")
            found.drop_in("two.pdf", make_pdf(["one", "two"]))
            expect(page.get_by_role("alert")).to_contain_text("It says (HTTP 401)")
            page.get_by_label("API key").fill(KEY)
            page.keyboard.press("Enter")
            assert found.wait_done() == "Done: 2 of 2 pages."
            assert page.locator(".text").all_inner_texts() == ["one", "two"]
            page.get_by_label("useSealRecognition").select_option(label="yes")
            page.click("#again")
            found.wait_done()
            assert stand.replicas[0].seen()[-1]["useSealRecognition"] is True


def test_a_sample_through_the_real_preview(browser: Browser, preview: Running, tmp_path: Path) -> None:
    with Viewer(preview.url) as viewer:
        threading.Thread(target=viewer.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        with watched(browser, viewer.url) as found:
            page = found.page
            page.set_default_timeout(120_000)
            found.drop_in("paper.pdf", (SAMPLES / "paper.pdf").read_bytes())
            assert found.wait_done() == "Done: 1 of 1 pages."
            text = page.inner_text("#page-1 .text")
            assert "Abstract" in text
            assert page.locator(".text table td").count() > 5 and page.locator(".text img").count() >= 1
            # Nearly all that is read knows its blocks: what PaddleX makes of a block is what we look for.
            parts, linked = page.locator(".part").count(), page.locator(".part.linked").count()
            assert linked >= 0.9 * parts and parts > 8
            box = page.get_by_role("button", name="table:")
            box.hover()
            assert page.locator(".part.on td").count() > 5
            with zipfile.ZipFile(found.downloaded("#save-markdown", tmp_path)) as archive:
                assert archive.testzip() is None and len(archive.namelist()) > 1
                assert "Abstract" in archive.read("paper.md").decode()
            with zipfile.ZipFile(found.downloaded("#save-docx", tmp_path)) as archive:
                assert "Abstract" in archive.read("word/document.xml").decode()
        viewer.shutdown()
