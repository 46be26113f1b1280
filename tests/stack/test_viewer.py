"""The viewer in a real browser: what a person sees and does."""

from __future__ import annotations

import base64
import json
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from gateway_stack import assemble, make_pdf
from playwright.sync_api import expect
from support import make_encrypted_pdf
from viewer_stack import (
    BLOCKS,
    JPEG,
    MARKDOWN,
    NAME,
    SAMPLE,
    THREE,
    Reply,
    Service,
    Watched,
    as_read,
    block,
    pages_of,
    picture,
    read_sample,
    refused,
    result,
    success,
)


def shown(found: Watched) -> list[str]:
    """The text of each page; also of those that Chromium does not draw, as they are far from the screen."""
    return [text.strip() for text in found.page.locator("#pages .text").all_text_contents()]


def test_a_pdf_is_read_page_by_page_and_shown_in_order(seen: Watched, service: tuple[Service, str]) -> None:
    asked: list[list[str]] = []
    go_on = threading.Event()

    def answer(path: str, request: dict[str, Any]) -> Reply:
        asked.append(pages_of(request))
        if asked[-1] == ["first page"]:
            assert go_on.wait(20)
        return as_read(path, request)

    service[0].answer = answer
    seen.drop_in("three.pdf", THREE)
    seen.wait_done("2 of 3")  # what is read shows while the first page is still on its way
    expect(seen.page.locator("#page-3 .text")).to_have_text("third page")
    assert seen.page.locator("#progress").get_attribute("value") == "2"
    go_on.set()
    assert seen.wait_done() == "Done: 3 of 3 pages."
    assert shown(seen) == ["first page", "second page", "third page"]
    assert sorted(asked) == [["first page"], ["second page"], ["third page"]]
    # Each page has its own picture; letters are where the service has found them.
    seen.page.locator("#page-2").scroll_into_view_if_needed()
    seen.page.wait_for_selector("#page-2 canvas")
    inked = """canvas => { const {width, height} = canvas;
        const ink = canvas.getContext("2d").getImageData(0, 0, width, height).data.some((v, i) => i % 4 < 3 && v < 100);
        return [ink, Math.abs(width / height - 2.5) < 0.01]; }"""
    assert seen.page.locator("#page-2 canvas").evaluate(inked) == [True, True]


def test_pages_of_scanners_and_chinese_pages_are_drawn(seen: Watched, service: tuple[Service, str]) -> None:
    """JPEG 2000 is decoded without WebAssembly, and the tables of Chinese encodings are at hand: both are files of pdf.js."""
    scan = picture("JPEG2000", (100, 40))
    font = b"<< /Type /Font /Subtype /Type0 /BaseFont /STSong-Light /Encoding /GBK-EUC-H /DescendantFonts [7 0 R] >>"
    system = b"<< /Registry (Adobe) /Ordering (GB1) /Supplement 2 >>"
    content = b"q 250 0 0 100 0 0 cm /I Do Q BT /F 20 Tf 300 50 Td <C4E3BAC3> Tj ET"
    service[0].answer = lambda path, request: success(result("", [], size=(500, 100)))
    found: list[tuple[str, int]] = []
    seen.page.on("response", lambda reply: found.append((reply.url.rpartition("/")[2], reply.status)))
    seen.drop_in("scan.pdf", assemble([
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 500 100] /Contents 4 0 R "
        b"/Resources << /XObject << /I 5 0 R >> /Font << /F 6 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /XObject /Subtype /Image /Width 100 /Height 40 /Filter /JPXDecode /Length %d >>\nstream\n%s\nendstream"
        % (len(scan), scan),
        font,
        b"<< /Type /Font /Subtype /CIDFontType0 /BaseFont /STSong-Light /CIDSystemInfo %s /FontDescriptor 8 0 R >>" % system,
        b"<< /Type /FontDescriptor /FontName /STSong-Light /Flags 6 /FontBBox [0 -200 1000 900] /ItalicAngle 0 /Ascent 800 "
        b"/Descent -200 /CapHeight 700 /StemV 80 >>",
    ]))  # fmt: skip
    seen.wait_done()
    seen.page.wait_for_selector("canvas.picture")
    pixel = "canvas => [...canvas.getContext('2d').getImageData(canvas.width / 4, canvas.height / 2, 1, 1).data.slice(0, 3)]"
    assert seen.page.locator("canvas.picture").evaluate(pixel) == pytest.approx([200, 30, 30], abs=12)
    assert ("GBK-EUC-H.bcmap", 200) in found and ("openjpeg_nowasm_fallback.js", 200) in found


def test_a_page_that_cannot_be_read_costs_no_other(seen: Watched, service: tuple[Service, str]) -> None:
    def answer(path: str, request: dict[str, Any]) -> Reply:
        return refused(500, "Internal server error") if pages_of(request) == ["second page"] else as_read(path, request)

    service[0].answer = answer
    seen.drop_in("three.pdf", THREE)
    assert seen.wait_done() == "Done: 2 of 3 pages; 1 could not be read."
    assert shown(seen) == ["first page", "", "third page"]
    note = seen.page.inner_text("#page-2 > .note")
    assert "Internal server error" in note and "HTTP 500" in note and "log-7" in note


def test_hovering_links_block_and_text_both_ways_and_a_click_shows_the_json(seen: Watched, service: tuple[Service, str]) -> None:
    read_sample(seen, service[0])
    page = seen.page
    parts, boxes = page.locator(".part"), page.locator(".block")
    assert (parts.count(), boxes.count()) == (5, 6)
    for part, box in enumerate(range(5)):
        parts.nth(part).hover()
        assert [index for index in range(6) if "on" in boxes.nth(index).get_attribute("class").split()] == [box]
        boxes.nth(box).hover()
        assert [index for index in range(5) if "on" in parts.nth(index).get_attribute("class").split()] == [part]
    boxes.nth(5).hover()  # the footer is not in the Markdown
    assert page.locator(".part.on").count() == 0
    # The box is drawn where the block is: 20, 100 to 280, 160 of a page of 500 × 200.
    sheet, table = page.locator(".sheet").bounding_box(), boxes.nth(3).bounding_box()
    assert table["x"] - sheet["x"] == pytest.approx(sheet["width"] * 20 / 500, abs=2)
    assert table["width"] == pytest.approx(sheet["width"] * 260 / 500, abs=2)
    assert table["y"] - sheet["y"] == pytest.approx(sheet["height"] * 100 / 200, abs=2)
    boxes.nth(3).click()
    assert json.loads(page.inner_text("#block-json")) == BLOCKS[3]
    page.click("#block-copy")
    expect(page.locator("#block-status")).to_have_text("Copied.")
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == BLOCKS[3]
    page.click("#block-close")
    parts.nth(1).click()
    assert json.loads(page.inner_text("#block-json")) == BLOCKS[1]


def test_texts_that_are_alike_are_linked_to_their_own_blocks(seen: Watched, service: tuple[Service, str]) -> None:
    texts = ["Yes", "Yes", "Total of all goods", "Total", "One block of", "two paragraphs", "part one part two"]
    contents = ["Yes", "Yes", "Total of all goods", "Total", "One block of\n\ntwo paragraphs", "part one", "part two"]
    blocks = [block("text", content, [10, 10 + 20 * number, 200, 25 + 20 * number]) for number, content in enumerate(contents)]
    service[0].answer = lambda path, request: success(result("\n\n".join(texts), blocks))
    seen.drop_in("a.png", picture("PNG", (500, 200)), "image/png")
    seen.wait_done()
    marked = []
    for part in seen.page.locator(".part").all():
        part.hover()
        on = "all => all.flatMap((one, index) => one.classList.contains('on') ? [index] : [])"
        marked.append(seen.page.locator(".block").evaluate_all(on))
    assert marked == [[0], [1], [2], [3], [4], [4], [5, 6]]


def test_tables_formulas_and_pictures_are_drawn(seen: Watched, service: tuple[Service, str]) -> None:
    table = "<table><tr><td>$ \\alpha_1 $</td></tr></table>"
    formulas = f"Energy $ E = mc^2 $ costs $5 and $10, $x$\n\n{table}\n\n$\\frac$\n\n$$\na_{{1}}*b*c\n$$"
    service[0].answer = lambda path, request: success(
        {**SAMPLE, "markdown": {"text": MARKDOWN + "\n" + formulas, "images": {NAME: JPEG}}}
    )
    seen.drop_in("invoice.png", picture("PNG", (500, 200)), "image/png")
    seen.wait_done()
    page = seen.page
    assert page.locator(".text td").all_inner_texts()[:2] == ["Widget", "7.50"]
    image = page.locator(".text img")
    assert image.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])") == [60, 40]
    page.wait_for_selector(".formula annotation", state="attached")
    sources = page.locator(".formula annotation").evaluate_all("all => all.map(one => one.textContent.trim())")
    assert sources == ["E = mc^2", "E = mc^2", "x", "\\alpha_1", "a_{1}*b*c"]
    assert "costs $5 and $10," in page.inner_text(".text")
    assert page.locator("code", has_text="\\frac").count() == 1  # what cannot be drawn stays to be read
    assert page.evaluate("document.fonts.check('16px KaTeX_Main')")


def test_a_table_that_is_too_wide_scrolls_and_keeps_its_words(seen: Watched, service: tuple[Service, str]) -> None:
    table = f"<table><tr>{''.join(f'<td>Column{number}</td>' for number in range(30))}</tr></table>"
    service[0].answer = lambda path, request: success(result(table, []))
    seen.drop_in("a.png", picture("PNG", (500, 200)), "image/png")
    seen.wait_done()
    assert seen.page.locator("td").last.evaluate("one => one.clientHeight") < 40, "one line"
    assert seen.page.locator(".part").evaluate("one => one.scrollWidth > one.clientWidth")
    assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_what_is_copied_and_downloaded(seen: Watched, service: tuple[Service, str], tmp_path: Path) -> None:
    read_sample(seen, service[0])
    page = seen.page
    page.click("#copy-markdown")
    expect(page.locator("#status")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == MARKDOWN.strip() + "\n"
    page.click("#copy-json")
    saved = json.loads(seen.downloaded("#save-json", tmp_path).read_text())
    assert saved["result"]["layoutParsingResults"] == [{"page": 1, **SAMPLE}]
    assert json.loads(page.evaluate("navigator.clipboard.readText()")) == saved
    path = seen.downloaded("#save-markdown", tmp_path)
    assert path.name == "invoice.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None and sorted(archive.namelist()) == [NAME, "invoice.md"]
        assert archive.read("invoice.md").decode() == MARKDOWN.strip() + "\n"
        assert archive.read(NAME) == base64.b64decode(JPEG)

    content = base64.b64encode(b"PK the document").decode()
    document = {**SAMPLE, "exports": {"docx": {"content": content, "fileName": "x.docx"}}}
    service[0].answer = lambda path, request: success(document)
    path = seen.downloaded("#save-docx", tmp_path)
    assert (path.name, path.read_bytes()) == ("invoice.docx", b"PK the document")
    request = service[0].seen[-1]
    assert request["path"] == "/restructure-pages" and request["concatenatePages"] is True
    assert request["outputFormats"] == ["docx"]
    assert request["pages"] == [{"prunedResult": SAMPLE["prunedResult"], "markdownImages": {NAME: JPEG}}]
    for status, words in ((422, "no docx here"), (500, "needs the Python package python-docx")):
        service[0].answer = lambda path, request, status=status: refused(status, "no docx here")
        page.click("#save-docx")
        expect(page.locator("#status")).to_contain_text(words)


def test_pictures_of_two_pages_with_one_name_stay_apart(seen: Watched, service: tuple[Service, str], tmp_path: Path) -> None:
    def answer(path: str, request: dict[str, Any]) -> Reply:
        size = (11, 5) if pages_of(request) == ["one"] else (22, 5)
        return success(result(f'<img src="{NAME}">', [], {NAME: base64.b64encode(picture(size=size)).decode(), "../../x": JPEG}))

    service[0].answer = answer
    seen.drop_in("two.pdf", make_pdf(["one", "two"]))
    seen.wait_done()
    with zipfile.ZipFile(seen.downloaded("#save-markdown", tmp_path)) as archive:
        names = [f"page-0001/{NAME}", f"page-0002/{NAME}"]
        assert sorted(archive.namelist()) == [*names, "two.md"]
        assert [name for name in re.findall(r'src="([^"]+)"', archive.read("two.md").decode())] == names
        assert archive.read(names[0]) != archive.read(names[1])


def test_options_are_those_that_the_service_describes(seen: Watched, service: tuple[Service, str]) -> None:
    page = seen.page
    page.click("#options summary")
    names = set(page.locator("#options-form [name]").evaluate_all("all => all.map(one => one.name)"))
    assert {"useChartRecognition", "layoutThreshold", "temperature", "promptLabel", "markdownIgnoreLabels"} <= names
    assert not {"file", "fileType", "logId", "visualize", "outputFormats"} & names
    page.get_by_label("useChartRecognition").select_option(label="yes")
    page.get_by_label("promptLabel").select_option("table")
    page.get_by_label("temperature").fill("0.5")
    page.get_by_label("layoutThreshold").fill('{"22": 0.4}')
    page.get_by_label("layoutMergeBboxesMode").fill("large")
    page.get_by_label("markdownIgnoreLabels").fill("header, footer")
    seen.drop_in("three.pdf", THREE)
    seen.wait_done()
    set_ = {"useChartRecognition": True, "promptLabel": "table", "temperature": 0.5, "layoutThreshold": {"22": 0.4},
            "layoutMergeBboxesMode": "large", "markdownIgnoreLabels": ["header", "footer"]}  # fmt: skip
    assert service[0].seen == [{"path": "/layout-parsing", "fileType": 0, **set_}] * 3
    page.get_by_label("promptLabel").select_option(label="default")
    page.get_by_label("temperature").fill("0.7")
    page.keyboard.press("Enter")
    seen.wait_done()
    assert [request["temperature"] for request in service[0].seen[3:]] == [0.7] * 3
    assert "promptLabel" not in service[0].seen[-1]
    page.get_by_label("temperature").fill("-1")
    page.click("#again")
    assert page.evaluate("document.activeElement.name") == "temperature" and len(service[0].seen) == 6


def test_pages_are_put_together_where_that_is_asked_for(seen: Watched, service: tuple[Service, str]) -> None:
    def answer(path: str, request: dict[str, Any]) -> Reply:
        if path == "/layout-parsing":
            return as_read(path, request)
        pages = [page["prunedResult"]["parsing_res_list"][0]["block_content"] for page in request["pages"]]
        return success(*[result(f"{text} of {len(pages)}", []) for text in pages])

    service[0].answer = answer
    seen.page.click("#options summary")
    seen.page.get_by_label("restructurePages").select_option(label="yes")
    seen.page.get_by_label("mergeTables").select_option(label="no")
    seen.drop_in("three.pdf", THREE)
    seen.wait_done()
    assert shown(seen) == ["first page of 3", "second page of 3", "third page of 3"]
    *pages, last = service[0].seen
    assert all("restructurePages" not in request for request in pages)
    assert (last["path"], last["mergeTables"], last["concatenatePages"]) == ("/restructure-pages", False, False)


def test_files_that_no_service_reads_are_not_sent(seen: Watched, service: tuple[Service, str]) -> None:
    alert = seen.page.get_by_role("alert")
    seen.drop_in("empty.pdf", b"")
    expect(alert).to_have_text("empty.pdf: the file is empty")
    seen.drop_in("secret.pdf", make_encrypted_pdf(b"secret"))
    expect(alert).to_contain_text("secret.pdf: the PDF is encrypted and needs a password")
    assert service[0].seen == []


def test_errors_are_shown_with_the_services_own_words(seen: Watched, service: tuple[Service, str]) -> None:
    alert = seen.page.get_by_role("alert")
    service[0].answer = lambda path, request: refused(422, "Invalid input file")
    seen.drop_in("letter.doc", b"\xd0\xcf\x11\xe0 no document", "application/msword")
    expect(alert).to_contain_text("It says (HTTP 422): Invalid input file logId log-7")
    service[0].answer = lambda path, request: (200, {"errorCode": 0}, {})
    seen.page.click("#again")
    expect(alert).to_have_text("The service's reply is not a whole one.")
    service[0].answer = lambda path, request: success(SAMPLE)
    seen.page.click("#again")
    seen.wait_done()
    expect(alert).to_have_text("")
    # A success in which nothing was read is none: upstream says so when its VLM answers nothing.
    service[0].answer = lambda path, request: success(result("# ", [block("doc_title", "", [1, 1, 9, 9])]))
    seen.page.click("#again")
    expect(seen.page.locator("#page-1 > .note")).to_contain_text("has read no text")


def test_a_busy_service_is_asked_again_when_it_says(seen: Watched, service: tuple[Service, str]) -> None:
    replies = iter([refused(429, "queue-full", Retry_After="0.1"), refused(503, "stopping", Retry_After="0.1")])
    service[0].answer = lambda path, request: next(replies, None) or as_read(path, request)
    seen.drop_in("one.pdf", make_pdf(["only page"]))
    assert seen.wait_done() == "Done: 1 of 1 pages." and len(service[0].seen) == 3


def test_stop_keeps_what_was_read(seen: Watched, service: tuple[Service, str]) -> None:
    go_on = threading.Event()

    def answer(path: str, request: dict[str, Any]) -> Reply:
        if pages_of(request) != ["page 1"]:
            go_on.wait(20)
        return as_read(path, request)

    service[0].answer = answer
    seen.drop_in("ten.pdf", make_pdf([f"page {number}" for number in range(1, 11)]))
    seen.wait_done("1 of 10")
    seen.page.click("#stop")
    assert seen.wait_done("Stopped") == "Stopped: 1 of 10 pages."
    go_on.set()
    assert shown(seen)[0] == "page 1" and len(service[0].seen) <= 5
    expect(seen.page.locator("#again")).to_be_visible()


def test_the_key_is_sent_and_kept_no_longer_than_the_tab(seen: Watched, service: tuple[Service, str]) -> None:
    service[0].answer = lambda path, request: (
        as_read(path, request) if service[0].keys[-1] == "Bearer s3cret-key" else refused(401, "an API key is needed")
    )
    page = seen.page
    seen.drop_in("three.pdf", THREE)
    expect(page.get_by_role("alert")).to_contain_text("wants an API key")
    assert page.evaluate("document.activeElement.id") == "key"
    assert len(service[0].seen) <= 4  # not once more for each page
    page.keyboard.type("s3cret-key")
    page.keyboard.press("Enter")
    assert seen.wait_done() == "Done: 3 of 3 pages."
    assert (
        page.evaluate("JSON.stringify([localStorage.length, document.cookie, location.href.includes('s3cret')])")
        == '[0,"",false]'
    )
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.input_value("#key") == "s3cret-key" and page.get_attribute("#key", "type") == "password"


def test_dropping_and_pasting(seen: Watched, service: tuple[Service, str]) -> None:
    hand_over = """([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "given.pdf", {type: "application/pdf"}));
        const event = kind === "drop" ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
                                      : new ClipboardEvent("paste", {clipboardData: data, bubbles: true});
        document.body.dispatchEvent(event);
        return event.defaultPrevented; }"""
    assert seen.page.evaluate(hand_over, ["drop", list(make_pdf(["dropped"]))])  # else the browser would open it instead
    seen.wait_done()
    assert shown(seen) == ["dropped"]
    seen.page.evaluate(hand_over, ["paste", list(make_pdf(["pasted"]))])
    expect(seen.page.locator("#pages .text")).to_have_text("pasted")


def test_of_two_documents_the_later_one_counts(seen: Watched, service: tuple[Service, str]) -> None:
    """Also where the earlier one, here a PDF with the library for it, takes longer to open."""
    service[0].answer = lambda path, request: success(SAMPLE)
    both = """async pdf => { for (const [bytes, name] of [[pdf, "first.pdf"], [[1, 2, 3], "second.tiff"]]) {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], name));
        document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})); }
        const {open} = await import("/viewer/file.js");
        (await open(new File([new Uint8Array(pdf)], "third.pdf"))).close(); }"""  # after that the first one is open too
    seen.page.evaluate(both, list(THREE))
    seen.wait_done()
    assert seen.page.inner_text("#result-title") == "second.tiff"
    assert [request["fileType"] for request in service[0].seen] == [1]


def test_a_pdf_that_the_browser_cannot_open_goes_to_the_service_as_it_is(seen: Watched, service: tuple[Service, str]) -> None:
    sent: list[bytes] = []

    def answer(path: str, request: dict[str, Any]) -> Reply:
        sent.append(base64.b64decode(request["file"]))
        return success(result("one", []), result("two", []))

    service[0].answer = answer
    broken = b"%PDF-1.4\nnothing that pdf.js could mend"
    seen.drop_in("broken.pdf", broken)
    assert seen.wait_done() == "Done: 2 of 2 pages."
    assert sent == [broken] and shown(seen) == ["one", "two"]


def test_a_page_that_cannot_be_drawn_still_shows_its_blocks(seen: Watched, service: tuple[Service, str]) -> None:
    turned = json.loads(json.dumps(SAMPLE))
    turned["prunedResult"]["doc_preprocessor_res"] = {"angle": 180, "model_settings": {"use_doc_unwarping": False}}
    for name, kind, answer, reason in (
        ("scan.tiff", "TIFF", SAMPLE, "This browser cannot draw this page"),
        ("scan.png", "PNG", turned, "The service has turned or flattened this page"),  # the boxes would be wrong
    ):
        service[0].answer = lambda path, request, answer=answer: success(answer)
        seen.drop_in(name, picture(kind, (500, 200)), f"image/{kind.lower()}")
        expect(seen.page.locator(".paper .note")).to_contain_text(reason)
        seen.wait_done()
        assert seen.page.locator(".block").count() == 6 and seen.page.locator(".picture").count() == 0
