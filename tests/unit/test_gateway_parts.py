"""The gateway's pure parts: turns, ranges, joining, addresses, keys, figures, settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kit.errors import ExitCode, KitError
from kit.gateway import causes, metrics, settings
from kit.gateway.addresses import is_host_allowed, is_number, is_public
from kit.gateway.auth import Keys, KeysError, parse_keys
from kit.gateway.body import Room
from kit.gateway.fairness import FairQueue
from kit.gateway.join import BadReply, Pages, read_reply, unread_pages
from kit.gateway.settings import load
from kit.gateway.split import ranges
from support import ROOT

# --- turns


def test_clients_take_turns_and_so_do_their_documents() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "b2"):
        queue.put("many", item[0], item)
    queue.put("one", "c", "c1")
    assert len(queue) == 6
    assert [queue.pop() for _ in range(4)] == ["a1", "c1", "b1", "a2"]
    queue.put("late", "d", "d1")
    assert [queue.pop() for _ in range(3)] == ["b2", "d1", "a3"]
    assert len(queue) == 0
    with pytest.raises(IndexError):
        queue.pop()


# --- ranges


@pytest.mark.parametrize("pages", [1, 2, 3, 7, 8, 9, 60, 61, 500])
@pytest.mark.parametrize("slots", [1, 2, 4, 9])
@pytest.mark.parametrize("most", [1, 4, 8])
def test_ranges_cover_each_page_once(pages: int, slots: int, most: int) -> None:
    parts = ranges(pages, slots, most)
    assert [page for first, last in parts for page in range(first, last + 1)] == list(range(pages))
    assert all(0 <= last - first < most for first, last in parts)
    assert len(parts) >= min(pages, slots), "a replica would be idle"
    lengths = [last - first for first, last in parts]
    assert max(lengths) - min(lengths) <= 1, "one replica would be waited for"


# --- joining


def reply_of(pages: list[str], info: Any = None, **changed: Any) -> bytes:
    made = [{"prunedResult": {"parsing_res_list": [{"block_label": "text", "block_content": text}]},
             "markdown": {"text": text, "images": {}}} for text in pages]  # fmt: skip
    sizes = [{"width": len(text), "height": 1} for text in pages]
    info = info or {"numPages": len(pages), "pages": sizes, "type": "pdf"}
    envelope = {"logId": "x", "result": {"layoutParsingResults": made, "dataInfo": info}, "errorCode": 0, "errorMsg": "Success"}
    return json.dumps(envelope | changed, ensure_ascii=False).encode()


def test_pages_come_back_in_order_whichever_came_first() -> None:
    pages = Pages(5, Room(None, 10**9))
    for first, texts in ((3, ["d é漢", "e"]), (0, ["a"]), (1, ["b" * 2**20, "c"])):
        pages.put(first, read_reply(reply_of(texts), len(texts)))
    body = b"".join(pages.reply("mine", "pdf"))
    assert len(body) == pages.size("mine", "pdf")
    joined = json.loads(body)
    assert [page["markdown"]["text"] for page in joined["result"]["layoutParsingResults"]] == [
        "a",
        "b" * 2**20,
        "c",
        "d é漢",
        "e",
    ]
    assert [size["width"] for size in joined["result"]["dataInfo"]["pages"]] == [1, 2**20, 1, 4, 1]
    assert {**joined, "result": 0} == {"logId": "mine", "result": 0, "errorCode": 0, "errorMsg": "Success"}
    pages.write(1, '{"new":"é"}')
    body = b"".join(pages.reply("mine", "pdf"))
    assert len(body) == pages.size("mine", "pdf")
    assert [page.get("new") for page in json.loads(body)["result"]["layoutParsingResults"]] == [None, "é", None, None, None]


def test_a_page_that_is_missing_or_comes_twice_is_an_error() -> None:
    pages = Pages(3, Room(None, 10**9))
    pages.put(0, read_reply(reply_of(["a", "b"]), 2))
    with pytest.raises(BadReply, match="page 3 is missing"):
        pages.reply("x", "pdf")
    with pytest.raises(BadReply, match="page 2 came twice"):
        pages.put(1, read_reply(reply_of(["c", "d"]), 2))
    with pytest.raises(BadReply, match="dataInfo"):
        pages.put(2, read_reply(reply_of(["c"], {"numPages": 2, "pages": [{}, {}]}), 1))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (reply_of(["a"]), "1 of 2 pages"), (reply_of(["a"] * 3), "3 of 2"), (b"<html>", "contract"), (b"", "contract"),
        (reply_of(["a", "b"], errorCode=500), "errorCode 500"), (reply_of(["a", "b"])[:-9], "contract"),
        (reply_of(["a", "b"], result={"layoutParsingResults": [1, 2]}), "contract"), (b"\xff" + reply_of(["a", "b"]), "contract"),
        (b'{"layoutParsingResults":' + b"[" * 10**5, "contract"),
    ],
)  # fmt: skip
def test_a_success_that_is_none_is_seen(body: bytes, said: str) -> None:
    with pytest.raises(BadReply, match=said):
        read_reply(body, 2)


def test_ten_pages_of_more_name_the_setting_that_cuts_there() -> None:
    with pytest.raises(BadReply, match="max_num_input_imgs"):
        read_reply(reply_of(["a"] * 10), 12)


def test_pages_that_nobody_read_are_told_from_blank_ones() -> None:
    def unread(*texts_of_pages: list[str]) -> list[int]:
        body = json.loads(reply_of([""] * len(texts_of_pages)))
        for page, texts in zip(body["result"]["layoutParsingResults"], texts_of_pages, strict=True):
            page["prunedResult"]["parsing_res_list"] = [{"block_label": "text", "block_content": text} for text in texts]
        return unread_pages(list(read_reply(json.dumps(body).encode(), len(texts_of_pages)).pages))

    assert unread([]) == unread([], ["a"], ["", "a"]) == []
    assert unread([""]) == [1] and unread([], [""], [" \n"]) == [2, 3]
    assert unread(["a"], ["", ""]) == [], "a speck"
    assert unread(["a"], ["", "", ""]) == [2], "a whole page"


# --- addresses


@pytest.mark.parametrize("address", ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.255", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.8", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.9",
        "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1",
        "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "2002:7f00:1::",
        "2002:a9fe:a9fe::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2001:0:0:0:0:0:80ff:fffe", "2001:db8::1",
        "::127.0.0.1", "100::1", "2130706433", "0x7f.1", "localhost", "", "1.2.3", "example.com",
    ],
)  # fmt: skip
def test_all_other_addresses(address: str) -> None:
    assert not is_public(address)


def test_an_operators_networks_count_as_public_and_nothing_beside_them() -> None:
    networks = load(["--replica", "http://x", "--url-networks", "10.20.0.0/16, fd00::/64"], {}).url_networks
    assert is_public("10.20.1.1", networks) and is_public("::ffff:10.20.1.1", networks) and is_public("fd00::1", networks)
    assert not any(is_public(one, networks) for one in ("10.21.0.1", "127.0.0.1", "fd00:0:0:1::1", "::ffff:10.21.0.1"))


def test_an_address_is_told_from_a_name_however_it_is_written() -> None:
    for number in ("127.0.0.1", "127.0.0.1.", "2130706433", "127.1", "0177.0.0.1", "0x7f000001", "0X7F.1", "1.2.3.0x", "::1", "a.7"):
        assert is_number(number), number
    for name in ("example.com", "1.example.com", "localhost.", "0x7g", "7up", "", "xn--4ca.de"):
        assert not is_number(name), name


def test_hosts() -> None:
    hosts = ("files.example.com", ".example.org")
    for allowed in ("files.example.com", "FILES.EXAMPLE.COM", "files.example.com.", "a.example.org", "a.b.example.org"):
        assert is_host_allowed(allowed, hosts), allowed
    for other in ("example.com", "xfiles.example.com", "files.example.com.evil.net", "example.org", "badexample.org", "", "."):
        assert not is_host_allowed(other, hosts), other
    assert is_host_allowed("anything", ("*",)) and not is_host_allowed("anything", ())


# --- keys

KEY = "0123456789abcdef"


def test_keys_have_names_and_are_kept_as_hashes() -> None:
    keys = parse_keys(f"# all\nbilling:{KEY}1\n\n{KEY}2, scan : {KEY}3".replace(" : ", ":"))
    assert list(keys.values()) == ["billing", "key-2", "scan"]
    assert KEY not in repr(keys)
    found = Keys(f"billing:{KEY}")
    assert found.client_of({b"authorization": b"Bearer " + KEY.encode()}) == "billing"
    assert found.client_of({b"x-api-key": KEY.encode()}) == "billing"
    for headers in ({}, {b"x-api-key": b""}, {b"authorization": b"Basic " + KEY.encode()}, {b"x-api-key": KEY[:-1].encode()}):
        assert found.client_of(headers) is None
    assert not Keys().required and found.required


@pytest.mark.parametrize("text", ["short", f"{KEY} {KEY}", "ä" * 20, "name:", "# none"])
def test_what_is_no_key_is_refused_without_being_told(text: str) -> None:
    with pytest.raises(KeysError) as caught:
        parse_keys(text)
    assert text not in str(caught.value)


def test_a_key_file_that_is_gone_or_broken_keeps_the_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.gateway.auth._LOOK_AGAIN", -1.0)
    file, headers = tmp_path / "keys", {b"x-api-key": KEY.encode()}
    file.write_text(f"a:{KEY}")
    keys = Keys("", file)
    for content in (None, "short", ""):
        file.unlink() if content is None else file.write_text(content)
        assert keys.client_of(headers) == "a"
    file.write_text(f"b:{KEY}\n")
    assert keys.client_of(headers) == "b"


# --- figures


def test_figures_are_prometheus_text() -> None:
    counter = metrics.Counter("c_total", "What", ("name",))
    counter.add('a"\\\n')
    counter.add("b", by=2.5)
    assert list(counter.lines())[2:] == ['c_total{name="a\\"\\\\\\n"} 1', 'c_total{name="b"} 2.5']
    assert list(metrics.Counter("n_total", "None").lines())[2:] == ["n_total 0"]
    histogram = metrics.Histogram("s", "Seconds", "step")
    for seconds in (0.005, 0.3, 10**6):
        histogram.observe("x", seconds)
    figures = dict(line.rsplit(" ", 1) for line in list(histogram.lines())[2:])
    assert [figures[f's_bucket{{step="x",le="{bound}"}}'] for bound in ("0.005", "0.1", "0.5", "1200.0", "+Inf")] == list("11223")
    assert (figures['s_count{step="x"}'], figures['s_sum{step="x"}']) == ("3", "1000000.305000")


# --- settings


def test_flags_come_before_the_environment_and_that_before_defaults() -> None:
    environment = {"GATEWAY_REPLICAS": "http://a:1, http://b:2", "GATEWAY_PORT": "81", "GATEWAY_MAX_PAGES": ""}
    found = load([], environment)
    assert (found.replicas, found.port, found.max_pages, found.tls_key) == (("http://a:1", "http://b:2"), 81, 2000, None)
    found = load(["--replica", "http://c/", "--replica", "http://d", "--port", "82"], environment)
    assert (found.replicas, found.port) == (("http://c", "http://d"), 82)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "no API replica"), (["--port", "0"], "--port"), (["--port", "٣"], "--port"), (["--range-seconds", "nan"], "seconds"),
        (["--host", "localhost"], "--host"), (["--vlm", "https://x"], "--vlm"), (["--vlm", "http://u:secret@x"], "address"),
        (["--replica", "http://a http://a"], "twice"), (["--tls-key", __file__], "both"),
        (["--url-networks", "10.0.0.1/8"], "10.0"), (["--spool-mib", "99"], "--max-body-mib"),
        (["--handover", __file__], "Unix socket"), (["--spool-dir", "/none"], "folder"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(argv: list[str], said: str) -> None:
    with pytest.raises(KitError, match=said) as caught:
        load([*argv, *(["--replica", "http://x"] if argv and "--replica" not in argv else [])], {})
    assert caught.value.code == ExitCode.USAGE


def test_secrets_have_no_flag_and_are_not_told() -> None:
    secret = [one for one in settings.TABLE if one.secret]
    assert [one.name for one in secret] == ["api_keys"] and "--api-keys " not in settings.parser().format_help()
    assert len({one.flag for one in settings.TABLE}) == len(settings.TABLE)
    found = load(["--replica", "http://x"], {"GATEWAY_API_KEYS": KEY})
    assert found.api_keys == KEY


def test_the_page_has_every_setting_cause_and_figure() -> None:
    page = (ROOT / "docs/gateway.md").read_text()
    for table in (settings.markdown_table(), causes.markdown_table(), metrics.markdown_table()):
        assert table in page


def test_the_gateway_imports_only_what_the_official_image_has() -> None:
    """By its sources: the standard library, itself, and packages that paddlex[serving] brings; yarl comes with aiohttp."""
    import ast
    import sys

    allowed = {*sys.stdlib_module_names, "kit", "aiohttp", "yarl", "uvicorn", "pypdfium2", "PIL"}
    folder = ROOT / "scripts/kit"
    files = [*folder.glob("gateway/*.py"), *(folder / f"{name}.py" for name in ("reply", "testpage", "documents", "errors"))]
    ours = {"kit.gateway", "kit.reply", "kit.testpage", "kit.documents", "kit.errors"}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(), feature_version=(3, 10))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"kit.{one.name}" for one in node.names] if node.module == "kit" else [str(node.module)]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{file}: {name}"
                assert not name.startswith("kit.") or any(name == one or name.startswith(f"{one}.") for one in ours), name
