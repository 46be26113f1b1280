"""The viewer where something fails: what is tried again, what is kept, what the downloads say of a page that is missing."""

from __future__ import annotations

import json
import re
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest
from gateway_stack import make_pdf
from playwright.sync_api import Route, expect
from viewer_stack import JPEG, NAME, THREE, Reply, Service, Watched, as_read, block, pages_of, refused, result, success

# The pauses between tries, as short as the test wants them.
HURRY = "() => { const real = setTimeout; window.setTimeout = (work, pause, ...rest) => real(work, pause / 50, ...rest); }"
TEN = make_pdf([f"page {number}" for number in range(1, 11)])


def failing(*texts: str, status: int = 500, message: str = "Internal server error", **headers: str) -> Any:
    """An answer that refuses the pages with these texts."""

    def answer(path: str, request: dict[str, Any]) -> Reply:
        bad = path == "/layout-parsing" and pages_of(request)[0] in texts
        return refused(status, message, **headers) if bad else as_read(path, request)

    return answer


def texts(found: Watched) -> list[str]:
    return [text.strip() for text in found.page.locator("#pages .text").all_text_contents()]


@pytest.mark.parametrize(
    "faults",
    [
        ("lost", "lost", (503, "<html>not yet</html>")),
        ((502, "<html>Bad Gateway</html>"), (504, ""), (200, '{"errorCode": 0, "result": {"layoutPars')),
    ],
    ids=["lost", "of a proxy"],
)
def test_what_passes_costs_no_page(
    seen: Watched, service: tuple[Service, str], faults: tuple[str | tuple[int, str], ...]
) -> None:
    left = iter(faults)

    def handle(route: Route) -> None:
        fault = next(left, None)
        if fault is None:
            route.continue_()
        elif isinstance(fault, tuple):
            route.fulfill(status=fault[0], body=fault[1], content_type="application/json")
        else:
            route.abort("connectionreset")

    seen.page.evaluate(HURRY)
    seen.page.route("**/layout-parsing", handle)
    seen.drop_in("one.pdf", make_pdf(["only page"]))
    assert seen.wait_done() == "Done: 1 of 1 pages." and texts(seen) == ["only page"]
    assert next(left, None) is None and len(service[0].seen) == 1


def test_what_the_gateway_has_tried_twice_is_not_tried_again(seen: Watched, service: tuple[Service, str]) -> None:
    service[0].answer = failing("second page", status=502, X_Gateway_Cause="failed-twice")
    seen.drop_in("three.pdf", THREE)
    assert seen.wait_done() == "Done: 2 of 3 pages; 1 could not be read." and len(service[0].seen) == 3


def test_a_service_that_has_gone_ends_the_document_and_reading_again_goes_on(
    seen: Watched, service: tuple[Service, str]
) -> None:
    asked: list[str] = []
    sent = 0

    def answer(path: str, request: dict[str, Any]) -> Reply:
        asked.extend(pages_of(request))
        return as_read(path, request)

    def handle(route: Route) -> None:
        nonlocal sent
        sent += 1
        route.continue_() if sent <= 4 else route.abort("connectionreset")

    service[0].answer = answer
    seen.page.evaluate(HURRY)
    seen.page.route("**/layout-parsing", handle)
    seen.drop_in("ten.pdf", TEN)
    expect(seen.page.get_by_role("alert")).to_contain_text("does not answer, or the connection breaks off")
    assert texts(seen)[:4] == ["page 1", "page 2", "page 3", "page 4"]
    seen.page.unroute("**/layout-parsing")
    seen.page.click("#again")
    assert seen.wait_done() == "Done: 10 of 10 pages."
    assert texts(seen) == [f"page {number}" for number in range(1, 11)]
    assert sorted(asked) == sorted(texts(seen)), "no page was sent twice"
    expect(seen.page.get_by_role("alert")).to_have_text("")


def test_reading_again_sends_what_is_missing_or_with_other_options_everything(
    seen: Watched, service: tuple[Service, str]
) -> None:
    behind, page = service[0], seen.page
    behind.answer = failing("second page")
    seen.drop_in("three.pdf", THREE)
    assert seen.wait_done() == "Done: 2 of 3 pages; 1 could not be read."
    page.click("#again")
    expect(page.locator("#again")).to_be_visible()
    assert seen.wait_done() == "Done: 2 of 3 pages; 1 could not be read." and len(behind.seen) == 4
    page.click("#options summary")
    page.get_by_label("useSealRecognition").select_option(label="yes")
    page.click("#again")
    expect(page.locator("#again")).to_be_visible()
    assert len(behind.seen) == 7 and all(request["useSealRecognition"] for request in behind.seen[4:])
    behind.answer = as_read
    page.click("#again")
    assert seen.wait_done("Done: 3") == "Done: 3 of 3 pages." and len(behind.seen) == 8
    assert texts(seen) == ["first page", "second page", "third page"] and page.locator(".page.failed").count() == 0
    page.click("#again")  # nothing is missing
    expect(page.locator("#again")).to_be_visible()
    assert len(behind.seen) == 11


def test_pages_are_put_together_as_they_were_read_also_the_second_time(seen: Watched, service: tuple[Service, str]) -> None:
    fail = [True]

    def answer(path: str, request: dict[str, Any]) -> Reply:
        if path == "/layout-parsing":
            return failing(*["second page"] * fail[0])(path, request)
        pages = [page["prunedResult"]["parsing_res_list"][0]["block_content"] for page in request["pages"]]
        changed = [block("text", f"joined {text}", [1, 1, 9, 9]) for text in pages]
        return success(*[result(f"{text} of {len(pages)}", [one]) for text, one in zip(pages, changed, strict=True)])

    service[0].answer = answer
    seen.page.click("#options summary")
    seen.page.get_by_label("restructurePages").select_option(label="yes")
    seen.drop_in("three.pdf", THREE)
    seen.wait_done()
    assert texts(seen) == ["first page of 2", "", "third page of 2"]
    fail[0] = False
    seen.page.click("#again")
    seen.wait_done("Done: 3")
    assert texts(seen) == ["first page of 3", "second page of 3", "third page of 3"]
    assert [request["path"] for request in service[0].seen[-2:]] == ["/layout-parsing", "/restructure-pages"]


def test_downloads_name_the_pages_that_are_missing(seen: Watched, service: tuple[Service, str], tmp_path: Path) -> None:
    def answer(path: str, request: dict[str, Any]) -> Reply:
        if pages_of(request) == ["second page"]:
            return refused(500, "no ---> <b>way</b> --!> out")
        return success(result(f'{pages_of(request)[0]} <img src="{NAME}">', [], {NAME: JPEG}))

    service[0].answer = answer
    seen.drop_in("three.pdf", THREE)
    seen.wait_done()
    pages = json.loads(seen.downloaded("#save-json", tmp_path).read_text())["result"]["layoutParsingResults"]
    assert [page["page"] for page in pages] == [1, 2, 3]
    assert [page["markdown"]["text"][:5] for page in pages] == ["first", "", "third"]
    assert ["error" in page for page in pages] == [False, True, False] and "(HTTP 500)" in pages[1]["error"]
    expect(seen.page.locator("#status")).to_have_text("Saved; 1 of 3 pages are missing.")
    with zipfile.ZipFile(seen.downloaded("#save-markdown", tmp_path)) as archive:
        assert sorted(archive.namelist()) == [f"page-0001/{NAME}", f"page-0003/{NAME}", "three.md"]
        text = archive.read("three.md").decode()
    first, missing, third = text.strip().split("\n\n")
    assert f'"page-0001/{NAME}"' in first and f'"page-0003/{NAME}"' in third
    assert re.fullmatch(r"<!-- page 2 was not read: .*HTTP 500.* -->", missing)
    assert re.findall(r"--!?>", missing) == ["-->"], "what the service says does not end the comment"


def test_a_second_document_ends_the_first_without_a_word(seen: Watched, service: tuple[Service, str]) -> None:
    go_on = threading.Event()
    service[0].answer = lambda path, request: (go_on.wait(20), as_read(path, request))[1]
    seen.drop_in("three.pdf", THREE)
    seen.wait_done("0 of 3")
    seen.drop_in("empty.pdf", b"")
    expect(seen.page.get_by_role("alert")).to_have_text("empty.pdf: the file is empty")
    go_on.set()
    expect(seen.page.locator("#status")).to_have_text("")
    assert seen.page.locator("#again, #stop, #progress").evaluate_all("all => all.every(one => one.hidden)")


def test_options_stay_as_they_were_written_when_the_key_is_changed(seen: Watched, service: tuple[Service, str]) -> None:
    page = seen.page
    page.click("#options summary")
    written = {
        "markdownIgnoreLabels": "header, footer",
        "layoutMergeBboxesMode": '"large"',
        "layoutThreshold": '{"22": 0.4}',
        "topP": "0.5",
    }
    for name, text in written.items():
        page.fill(f"#option-{name}", text)
    page.get_by_label("useSealRecognition").select_option(label="no")
    before = page.locator("#option-topP").element_handle()
    page.fill("#key", "another")
    page.keyboard.press("Tab")
    page.wait_for_function("one => !one.isConnected", arg=before)
    assert {name: page.input_value(f"#option-{name}") for name in written} == written
    assert page.input_value("#option-useSealRecognition") == "false" and page.input_value("#option-useChartRecognition") == ""


def test_a_key_that_no_request_can_carry_is_not_known(seen: Watched, service: tuple[Service, str]) -> None:
    seen.page.fill("#key", "密钥")
    seen.drop_in("three.pdf", THREE)
    expect(seen.page.get_by_role("alert")).to_contain_text("wants an API key, or does not know this one")
    assert service[0].seen == []
