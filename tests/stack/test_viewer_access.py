"""The viewer for everybody: keyboard alone, screen readers (by axe-core), light and dark, both languages."""

from __future__ import annotations

import json
import re

from playwright.sync_api import Browser, expect
from support import ROOT
from viewer_stack import (
    BLOCKS,
    SAMPLE,
    THREE,
    Service,
    Watched,
    picture,
    read_sample,
    refused,
    success,
    watched,
)


def test_keyboard_alone(seen: Watched, service: tuple[Service, str]) -> None:
    service[0].answer = lambda path, request: success(SAMPLE)
    page = seen.page
    page.on("filechooser", lambda _: None)  # told to the browser at leisure; before that it would open a window

    def focused() -> str:
        script = """() => { const {id, className, tagName, parentElement} = document.activeElement;
            return id || (className || tagName).split(" ")[0] || parentElement.id; }"""
        return page.evaluate(script)

    order = []
    for _ in range(4):
        page.keyboard.press("Tab")
        order.append(focused())
    assert order == ["skip", "key", "file", "SUMMARY"]
    page.keyboard.press("Shift+Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files({"name": "a.png", "mimeType": "image/png", "buffer": picture("PNG", (500, 200))})
    seen.wait_done()
    page.focus("#file")
    order = []
    for _ in range(10):
        page.keyboard.press("Tab")
        order.append(focused())
    assert order == [
        *("again", "SUMMARY", "copy-markdown", "copy-json", "save-markdown", "save-json", "save-docx", "block", "text"),
        "BODY",  # and on to the browser's own controls: no trap
    ]
    page.focus(".block")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.ariaLabel") == "Block 2, text: Pay within 30 days."
    assert page.inner_text(".part.on") == "Pay within 30 days."
    page.keyboard.press("Enter")
    expect(page.locator("#block")).to_be_visible()
    assert json.loads(page.inner_text("#block-json")) == BLOCKS[1]
    page.keyboard.press("Escape")
    expect(page.locator("#block")).to_be_hidden()
    assert page.evaluate("document.activeElement.ariaLabel") == "Block 2, text: Pay within 30 days."
    page.keyboard.press("End")
    assert "footer" in page.evaluate("document.activeElement.ariaLabel")


def test_accessibility_by_axe_in_light_and_dark(seen: Watched, service: tuple[Service, str]) -> None:
    axe = (ROOT / "tests" / "vendor" / "axe-core" / "axe.min.js").read_text()
    page = seen.page
    page.evaluate("void 0;" + axe)
    for state in ("start", "result", "error", "dialog"):
        if state == "result":
            page.click("#options summary")
            read_sample(seen, service[0])
        if state == "error":
            service[0].answer = lambda path, request: refused(422, "no")
            page.click("#again")
            expect(page.get_by_role("alert")).to_contain_text("no")
        if state == "dialog":
            read_sample(seen, service[0])
            page.locator(".block").first.click()
        for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.emulate_media(color_scheme=scheme)
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            brightness = sum(map(int, re.findall(r"\d+", colour)[:3]))
            assert brightness > 700 if scheme == "light" else brightness < 200
            checked = page.evaluate("rules => axe.run(rules)", rules)
            assert "color-contrast" in {rule["id"] for rule in checked["passes"]}
            assert rules or len(checked["passes"]) > 20
            broken = [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in checked["violations"]]
            assert broken == [], (state, scheme)


def test_language_by_the_browsers(browser: Browser, service: tuple[Service, str]) -> None:
    with watched(browser, service[1], locale="zh-CN") as found:
        page = found.page
        assert page.get_attribute("html", "lang") == "zh-CN"
        assert page.inner_text("label[for=file]") == "选择 PDF 或图片"
        found.drop_in("three.pdf", THREE)
        assert found.wait_done("完成") == "完成：3 / 3 页。"
        page.click("#options summary")
        assert "识别印章" in page.inner_text("#options-form")
        # Of several languages the first that there is, English where there is none.
        for languages, lang in ((["fr", "zh-TW", "en"], "zh-CN"), (["de-DE"], "en")):
            page.evaluate("async all => (await import('/viewer/words.js')).load(all)", languages)
            assert page.get_attribute("html", "lang") == lang
