"""Makes docs/viewer-light.png and docs/viewer-dark.png: the viewer with samples/, read by the service that runs here.

./kit up --local && .kit/test-venv/bin/python scripts/screenshots.py [URL]

Needs Chromium, and playwright from tests/requirements.txt. URL: of the service (default: http://127.0.0.1:8080).
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from kit.testing import chromium  # noqa: E402
from kit.view import Viewer  # noqa: E402

SIZE = {"width": 1280, "height": 900}
SHOTS = (
    ("light", "paper.pdf", ".kind-text >> nth=0"),
    ("dark", "invoice.png", ".kind-table"),
)  # scheme, sample, what is pointed at


def main() -> int:
    service = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080"
    program = chromium()
    if program is None:
        print("error: no Chromium here\nhint: apt-get install chromium", file=sys.stderr)
        return 6
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with Viewer(service) as viewer, sync_playwright() as playwright:
        threading.Thread(target=viewer.serve_forever, daemon=True).start()
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        for scheme, sample, block in SHOTS:
            page = browser.new_page(color_scheme=scheme, viewport=SIZE, locale="en-US")
            page.goto(viewer.url)
            page.set_input_files("#file", ROOT / "samples" / sample)
            page.wait_for_selector("#again:visible", timeout=180_000)
            if problem := page.inner_text("#problem"):
                print(f"error: {problem}\nhint: ./kit up --local", file=sys.stderr)
                return 1
            page.wait_for_selector("#page-1 .picture")
            page.hover(f"#page-1 {block}")
            page.evaluate("document.fonts.ready")
            file = ROOT / "docs" / f"viewer-{scheme}.png"
            page.screenshot(path=file, animations="disabled")
            print(f"written: {file.relative_to(ROOT)}")
        browser.close()
        viewer.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
