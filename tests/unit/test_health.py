"""What each sight means for a monitor; that deep probes do not pile up; what only HTTP can tell."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest
import yaml
from kit.errors import ExitCode
from kit.health import Reach, Wiring, judge_probe, judge_wiring, served_names, wiring
from kit.probe import FIRST_PAUSE, LONGEST_PAUSE, WORD, Probe, Result, page, pause, probe, text_of
from PIL import Image
from support import ROOT, Workspace, free_port

HERE = Wiring("vllm-server", "http://vlm:8118/v1", "PaddleOCR-VL-0.9B")


# --- the wiring


def test_our_pipeline_config_names_the_vlm_and_its_model() -> None:
    found = wiring(yaml.safe_load((ROOT / "pipeline_config_vllm.yaml").read_text()))
    assert found == Wiring("vllm-server", "http://paddleocr-vlm-server:8118/v1", "PaddleOCR-VL-0.9B")
    assert found.models_url == "http://paddleocr-vlm-server:8118/v1/models"


def test_the_clients_own_model_name_wins_and_null_means_whatever_is_served() -> None:
    recognition = {"model_name": "a", "genai_config": {"backend": "vllm-server", "client_kwargs": {"model_name": "b"}}}
    assert wiring({"SubModules": {"VLRecognition": recognition}}).requested == "b"
    recognition["genai_config"]["client_kwargs"]["model_name"] = None
    assert wiring({"SubModules": {"VLRecognition": recognition}}).requested == ""
    assert wiring({"SubModules": {"VLRecognition": {"model_name": "a"}}}).backend == "native"
    for bad in (None, [], {"SubModules": None}, {"SubModules": {"VLRecognition": "x"}}):
        with pytest.raises(ValueError):
            wiring(bad)


@pytest.mark.parametrize(
    ("reach", "verdict"),
    [
        (Reach(200, ("PaddleOCR-VL-0.9B",)), None),
        (Reach(200, ("other", "PaddleOCR-VL-0.9B")), None),
        (Reach(200, ("PaddleOCR-VL-1.6-0.9B",)), "wrong-model"),
        (Reach(200, ()), "wrong-model"),
        (Reach(200, problem="it lists no models"), "vlm-unreached"),
        (Reach(0, problem="Name or service not known"), "vlm-unreached"),
        (None, "vlm-unreached"),
        (Reach(404), "vlm-unreached"),
        (Reach(502), "vlm-unreached"),
        (Reach(401), "vlm-refuses"),
    ],
)
def test_wiring_is_judged(reach: Reach | None, verdict: str | None) -> None:
    found = judge_wiring(HERE, reach)
    assert (found.verdict if found else None) == verdict
    if found:
        assert found.code == ExitCode.VLM and found.hint


def test_the_judgement_says_what_was_seen() -> None:
    assert (
        "asks for PaddleOCR-VL-0.9B, the VLM serves PaddleOCR-VL-1.6-0.9B"
        in judge_wiring(HERE, Reach(200, ("PaddleOCR-VL-1.6-0.9B",))).summary
    )
    assert (
        "http://vlm:8118/v1: Name or service not known"
        in judge_wiring(HERE, Reach(0, problem="Name or service not known")).summary
    )
    assert "/v1" in judge_wiring(HERE, Reach(404)).hint


def test_only_vllm_is_known_to_refuse_another_name() -> None:
    assert judge_wiring(Wiring("llama-cpp-server", "http://x/v1", "a"), Reach(200, ("b.gguf",))) is None
    assert judge_wiring(Wiring("native"), None) is None


def test_what_is_no_list_of_models() -> None:
    assert served_names({"data": [{"id": "a"}, {"id": "b"}]}) == ("a", "b")
    for bad in (None, [], {"error": 1}, {"data": None}):
        with pytest.raises(ValueError):
            served_names(bad)


# --- the page


def test_the_page_is_small_and_has_something_on_it() -> None:
    data = page()
    picture = Image.open(BytesIO(data)).convert("L")
    assert len(data) < 20_000 and picture.width * picture.height < 500_000
    dark = sum(picture.histogram()[:128])
    assert dark > 2000
    assert data == page(), "the same page every time"


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("# Health check\n\nThis page", "Health check This page"),
        ("# \n\n## ", ""),
        ("<table><tr><td></td></tr></table>", ""),
        ('<div><img src="imgs/a.jpg" alt="Image" /></div> ![](imgs/b.jpg)', ""),
        ("页", "页"),
    ],
)
def test_signs_around_nothing_are_no_text(markdown: str, text: str) -> None:
    assert text_of({"layoutParsingResults": [{"markdown": {"text": markdown}}]}) == text


# --- a service that does what the test tells it


class Stub:
    """/health answers `health`; /layout-parsing does `answer`, which gives (status, markdown). pages: how many it got."""

    def __init__(self, answer: Callable[[], tuple[int, str]], health: Callable[[], int]) -> None:
        self.answer, self.health, self.pages = answer, health, 0
        stub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                self.reply(stub.health(), {"errorCode": 0})

            def do_POST(self) -> None:
                stub.pages += 1
                self.rfile.read(int(self.headers["content-length"]))
                status, text = stub.answer()
                block = {"block_label": "doc_title", "block_content": text.removeprefix("# ")}
                pruned = {"parsing_res_list": [block]}
                result = {"layoutParsingResults": [{"markdown": {"text": text}, "prunedResult": pruned}]}
                body = {"logId": "x", "errorCode": 0 if status == 200 else status, "errorMsg": text, "result": result}
                self.reply(status, body)

            def reply(self, status: int, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def serving(
    answer: Callable[[], tuple[int, str]] = lambda: (200, "# Health check"), health: Callable[[], int] = lambda: 200
) -> Iterator[Stub]:
    stub = Stub(answer, health)
    thread = threading.Thread(target=stub.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.server.shutdown()
        stub.server.server_close()


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Set at the end of the test: whatever waits for it goes on."""
    event = threading.Event()
    yield event
    event.set()


def never(release: threading.Event) -> Callable[[], tuple[int, str]]:
    def answer() -> tuple[int, str]:
        release.wait(60)
        return 200, "late"

    return answer


# --- deep probes


def test_a_page_that_is_read(tmp_path: Path) -> None:
    with serving() as stub:
        found = probe(tmp_path, stub.url, started=None)
        assert found.sent and found.result and found.result.outcome == "read" and found.result.word_read
        assert WORD in "health check"
        again = probe(tmp_path, stub.url, started=None)
        assert again.sent and stub.pages == 2, "an answer lets the next one go at once"


@pytest.mark.parametrize(
    ("reply", "outcome", "verdict"),
    [
        ((200, "# "), "empty", "page-empty"),
        ((500, "Internal server error"), "failed", "page-failed"),
        ((200, "entirely other words"), "read", None),
    ],
)
def test_answers_that_are_no_page(tmp_path: Path, reply: tuple[int, str], outcome: str, verdict: str | None) -> None:
    with serving(lambda: reply) as stub:
        found = probe(tmp_path, stub.url, started=None)
    assert found.result and found.result.outcome == outcome and not found.result.word_read
    judged = judge_probe(found, alive=True)
    assert (judged.verdict if judged else None) == verdict
    if judged:
        assert judged.code == ExitCode.FAILED


def test_silence_is_busy_as_long_as_the_api_lives(tmp_path: Path, release: threading.Event) -> None:
    with serving(never(release)) as stub:
        found = probe(tmp_path, stub.url, started=None, timeout=0.2)
        assert found.result and found.result.outcome == "unanswered"
        assert judge_probe(found, alive=True).code == ExitCode.BUSY
        assert judge_probe(found, alive=False).code == ExitCode.UNREACHABLE
        release.set()


def test_no_second_page_joins_one_that_waits(tmp_path: Path, release: threading.Event) -> None:
    with serving(never(release)) as stub:
        probe(tmp_path, stub.url, started=None, timeout=0.2, now=1000)
        held = probe(tmp_path, stub.url, started=None, timeout=0.2, now=1030)
        assert not held.sent and stub.pages == 1
        assert held.next_in == FIRST_PAUSE - 30
        judged = judge_probe(held, alive=True)
        assert judged.code == ExitCode.BUSY and "30 s ago has had no answer" in judged.summary
        second = probe(tmp_path, stub.url, started=None, timeout=0.2, now=1000 + FIRST_PAUSE)
        assert second.sent and stub.pages == 2
        third = probe(tmp_path, stub.url, started=None, timeout=0.2, now=1000 + 2 * FIRST_PAUSE)
        assert not third.sent and third.next_in == FIRST_PAUSE, "the pause doubles"
        release.set()


def test_an_hour_of_silence_costs_few_pages(tmp_path: Path) -> None:
    """A monitor that asks every 20 s; the pauses alone, without the waiting."""
    sent, last, unanswered = 0, -1e9, 0
    for now in range(0, 3600, 20):
        if now - last >= pause(unanswered):
            sent, last, unanswered = sent + 1, now, unanswered + 1
    assert sent == 6
    assert pause(0) == 0 and pause(1000) == LONGEST_PAUSE


def test_a_start_of_the_api_empties_its_queue(tmp_path: Path, release: threading.Event) -> None:
    with serving(never(release)) as stub:
        probe(tmp_path, stub.url, started=900, timeout=0.2, now=1000)
        assert not probe(tmp_path, stub.url, started=900, timeout=0.2, now=1010).sent
        stub.answer = lambda: (200, "Health check")
        found = probe(tmp_path, stub.url, started=1005, timeout=5, now=1010)
        assert found.sent and found.result and found.result.outcome == "read"
        assert probe(tmp_path, stub.url, started=1005, timeout=5, now=1011).sent
        release.set()


def test_a_probe_that_was_killed_counts_as_unanswered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with serving() as stub:
        monkeypatch.setattr("kit.api.layout_parsing", killed)
        with pytest.raises(KeyboardInterrupt):
            probe(tmp_path, stub.url, started=None, now=1000)
        monkeypatch.undo()
        assert not probe(tmp_path, stub.url, started=None, now=1010).sent


def test_a_service_that_is_not_there_keeps_nobody_waiting(tmp_path: Path) -> None:
    from kit.errors import KitError

    url = f"http://127.0.0.1:{free_port()}"
    for _ in range(2):
        with pytest.raises(KitError) as caught:
            probe(tmp_path, url, started=None)
        assert caught.value.code == ExitCode.UNREACHABLE


def test_one_probe_at_a_time_and_the_other_reports_the_last_result(tmp_path: Path, release: threading.Event) -> None:
    with serving() as stub:
        probe(tmp_path, stub.url, started=None, now=1000)
        entered = threading.Event()

        def slow() -> tuple[int, str]:
            entered.set()
            release.wait(60)
            return 200, "Health check"

        stub.answer = slow
        first = threading.Thread(target=probe, args=(tmp_path, stub.url), kwargs={"started": None, "timeout": 60})
        first.start()
        assert entered.wait(10)
        second = probe(tmp_path, stub.url, started=None)
        assert not second.sent and "under way" in second.held and stub.pages == 2
        assert second.result and second.result.at == 1000 and judge_probe(second, alive=True) is None
        release.set()
        first.join()


def test_nothing_known_and_another_probe_under_way_is_busy() -> None:
    assert judge_probe(Probe(None, False, "another deep probe is under way"), alive=True).code == ExitCode.BUSY
    failed = Result("failed", 1.0, 2.0, message="HTTP 500", status=500)
    assert judge_probe(Probe(failed, False, "another deep probe is under way"), alive=True).code == ExitCode.FAILED


def test_a_damaged_record_is_no_obstacle(tmp_path: Path) -> None:
    with serving() as stub:
        probe(tmp_path, stub.url, started=None)
        (record,) = tmp_path.glob("deep-*.json")
        for text in ("", "[]", "{"):
            record.write_text(text)
            assert probe(tmp_path, stub.url, started=None).sent


# --- the verb, on an address


def test_an_address_tells_what_http_can_tell(workspace: Workspace) -> None:
    with serving() as stub:
        shallow = workspace.kit("health", "--url", stub.url)
        assert shallow.returncode == 0 and shallow.stdout.startswith(f"healthy: {stub.url} answers; only the service's own host")
        assert stub.pages == 0
        deep = workspace.kit("health", "--url", f"{stub.url}/", "--deep", "--json")
        report = json.loads(deep.stdout)
        assert deep.returncode == 0 and report["healthy"] and report["page"]["word_read"] and stub.pages == 1
        assert report["vlm"] is None and "own host" in report["vlm_not_seen"]


def test_the_exit_codes_of_an_address(workspace: Workspace, release: threading.Event) -> None:
    nobody = workspace.kit("health", "--url", f"http://127.0.0.1:{free_port()}")
    assert nobody.returncode == ExitCode.UNREACHABLE and "no API answers" in nobody.stdout and "hint: " in nobody.stderr
    with serving(lambda: (500, "Internal server error")) as stub:
        assert workspace.kit("health", "--url", stub.url, "--deep").returncode == ExitCode.FAILED
    with serving(never(release)) as stub:
        busy = workspace.kit("health", "--url", stub.url, "--deep", "--timeout", "0.3")
        assert busy.returncode == ExitCode.BUSY and busy.stdout.startswith("busy: the API lives")
        held = workspace.kit("health", "--url", stub.url, "--deep", "--json")
        report = json.loads(held.stdout)
        assert held.returncode == ExitCode.BUSY and report["verdict"] == "busy" and not report["page"]["sent"]
        assert 0 < report["page"]["next_in_seconds"] <= FIRST_PAUSE and stub.pages == 1
        release.set()


def test_nothing_runs(workspace: Workspace) -> None:
    done = workspace.kit("health", "--json")
    assert done.returncode == ExitCode.START and json.loads(done.stdout)["verdict"] == "not-running"
    bad = workspace.kit("health", "--url", "ftp://x")
    assert bad.returncode == ExitCode.USAGE and bad.stdout == ""
