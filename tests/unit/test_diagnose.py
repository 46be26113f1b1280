"""Known log lines lead to their cause; unknown ones and healthy ones to none.

tests/logs holds whole logs of real programs, paths shortened. healthy/: paddlex 3.7.2
with the preview's models and vLLM 0.28 for CPUs, each a start and some pages.
failed/: the same programs, made to fail in the way that the file's name says.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from kit import cli
from kit.catalog.failures import FAILURES, NEAR
from kit.catalog.failures.seen import SEEN
from kit.diagnose import diagnose, explain, since_serving, unknown_trouble
from kit.errors import ExitCode
from support import ROOT, check_error

LOGS = ROOT / "tests" / "logs"
HEALTHY = sorted((LOGS / "healthy").glob("*.log"))
FAILED = sorted((LOGS / "failed").glob("*.log"))
TEXTS = [(name, text) for name, texts in SEEN.items() for text in texts]
COLD = ["INFO:     Started server process [7]", "INFO:     Waiting for application startup."]


def names(lines: list[str]) -> list[str]:
    return [finding.failure.name for finding in diagnose({"log": lines})]


# --- the catalog


def test_every_failure_has_its_real_text_and_no_text_is_left_over() -> None:
    assert [failure.name for failure in FAILURES] == list(dict.fromkeys(failure.name for failure in FAILURES))
    assert set(SEEN) == {failure.name for failure in FAILURES}
    assert all(SEEN.values())


@pytest.mark.parametrize(("name", "text"), TEXTS, ids=lambda value: value[:30])
def test_each_text_is_explained_by_its_own_entry_and_by_no_other(name: str, text: str) -> None:
    lines = text.split("\n")
    (finding,) = diagnose({"log": [*COLD, *lines, "INFO: bye"]})
    assert finding.failure.name == name
    assert finding.line == len(COLD) + len(lines) and finding.text == lines[-1].strip()
    assert explain(lines) is (None if finding.failure.vague else finding.failure)


@pytest.mark.parametrize(("name", "text"), TEXTS, ids=lambda value: value[:30])
def test_a_text_is_known_behind_colours_and_the_prefix_of_compose(name: str, text: str) -> None:
    assert names([f"paddleocr-vlm-server-1  | \x1b[31m{line}\x1b[0m" for line in text.split("\n")]) == [name]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_no_alternative_of_a_pattern_is_a_guess(failure) -> None:
    """Each part between two `|` outside brackets has a text of its own."""
    texts = [text.split("\n")[-1] for text in SEEN[failure.name]]
    for part in alternatives(failure.pattern):
        assert any(re.search(part, text) for text in texts), part


def alternatives(pattern: str) -> list[str]:
    parts, depth = [""], 0
    for sign in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|.", pattern):
        depth += (sign == "(") - (sign == ")")
        parts = [*parts, ""] if sign == "|" and not depth else [*parts[:-1], parts[-1] + sign]
    return parts


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_each_entry_says_what_to_do_and_where_it_was_seen(failure) -> None:
    assert failure.cause and failure.fix and failure.source
    assert not failure.cause.endswith(".") and "\n" not in failure.cause + failure.fix


def test_what_fixes_name_exists() -> None:
    from kit.catalog.settings import SETTINGS

    verbs = set(cli.parser()._subparsers._group_actions[0].choices)
    for failure in FAILURES:
        for name in re.findall(r"(?:docs/)?[\w.-]+\.(?:md|yaml)\b", failure.fix):
            assert (ROOT / name).exists() or name.startswith("/") or "nvidia.yaml" in name, (failure.name, name)
        assert set(re.findall(r"\./kit (\w+)", failure.fix)) <= verbs, failure.name
        shouted = set(re.findall(r"\b(?:API|VLM|IMAGE|PIPELINE|CONTAINER)_[A-Z_]+\b", failure.fix))
        assert shouted <= set(SETTINGS), failure.name


# --- whole logs


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_a_healthy_start_shows_no_failure(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert any("Application startup complete" in line for line in lines)
    assert names(lines) == []
    assert unknown_trouble({"log": lines}) is None


@pytest.mark.parametrize("path", FAILED, ids=lambda path: path.stem)
def test_the_log_of_a_real_failure_leads_to_its_cause_alone(path: Path) -> None:
    assert names(path.read_text().splitlines()) == [path.stem]


def test_vllms_report_on_memory_at_a_good_start_is_no_failure() -> None:
    """vLLM 0.28, v1/worker/gpu_worker.py: begins with the words of the failure."""
    assert names([
        "Free memory on device (23.1/23.6 GiB) on startup. Desired GPU memory utilization is (0.7, 16.5 GiB). Actual",
    ]) == []  # fmt: skip


# --- how it decides


def test_all_causes_are_listed_the_most_fundamental_first_each_once() -> None:
    vlm = [
        "torch.OutOfMemoryError: CUDA out of memory.",
        "No space left on device",
        "torch.OutOfMemoryError: CUDA out of memory.",
    ]
    found = diagnose({"api": ["Exception from the 'vlm' worker: Connection error."], "vlm": vlm})
    assert [finding.failure.name for finding in found] == ["disk-full", "gpu-out-of-memory", "vlm-unreachable"]
    memory = found[1]
    assert (memory.log, memory.line, memory.times) == ("vlm", 3, 2)


def test_a_vague_line_counts_only_where_nothing_clearer_is_known() -> None:
    vague = "RuntimeError: Engine core initialization failed. See root cause above."
    assert names([vague]) == ["engine-died"]
    assert names(["ValueError: No available memory for the cache blocks.", vague]) == ["no-kv-cache"]


def test_a_line_that_says_too_little_needs_the_lines_before_it() -> None:
    says_little = "AttributeError: 'NoneType' object has no attribute 'items'"
    context = "    for k, v in overrides.items():"
    assert names([says_little]) == []
    assert names([context, *["  File x"] * (NEAR - 1), says_little]) == ["vlm-config-empty"]
    assert names([context, *["  File x"] * NEAR, says_little]) == []


def test_a_long_payload_costs_no_time_and_hides_no_other_line() -> None:
    assert names(["A" * 5_000_000, "RuntimeError: Exception from the 'vlm' worker: Connection error."]) == ["vlm-unreachable"]


def test_what_stands_before_the_last_success_is_past() -> None:
    bad = "RuntimeError: Exception from the 'vlm' worker: Connection error."
    good = 'INFO:     127.0.0.1:44496 - "POST /layout-parsing HTTP/1.1" 200 OK'
    assert since_serving([bad, good]) == []
    assert since_serving([good, bad]) == [bad]
    assert since_serving([bad]) == [bad]
    assert since_serving([bad, "(APIServer pid=7) INFO:     Application startup complete.", "x"]) == ["x"]


def test_trouble_of_which_nothing_is_known() -> None:
    lines = [
        "INFO: fine",
        "(EngineCore pid=7) Traceback (most recent call last):",
        "(EngineCore pid=7) FlubberError: oops",
        "INFO: x",
    ]
    found = unknown_trouble({"log": lines})
    assert found and (found.line, found.text) == (3, "(EngineCore pid=7) FlubberError: oops")


def test_up_shows_the_line_that_told_the_cause_also_when_many_came_after_it() -> None:
    from kit.stack import Service
    from kit.stack.start import LOG_LINES, died

    class Log:
        def tail(self, name: str, lines: int) -> list[str]:
            return ["INFO: a", "torch.OutOfMemoryError: CUDA out of memory. Tried", *[f"File {n}" for n in range(40)]][-lines:]

    error = died(Log(), Service("paddleocr-vlm-server", "exited", detail="container 1, exit status 1"))
    assert "the GPU ran out of memory" in error.message and "gpu-memory-utilization" in error.hint
    assert error.detail[0] == "torch.OutOfMemoryError: CUDA out of memory. Tried" and error.detail[-1] == "File 39"
    assert len(error.detail) == LOG_LINES + 2
    killed = died(Log(), Service("paddleocr-vl-api", "exited", detail="container 1, exit status 137"))
    assert killed.message.startswith("paddleocr-vl-api died (container 1, exit status 137): the process was killed")


# --- the verb


def kit(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["diagnose", *arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_a_log_file_is_explained(capsys) -> None:
    path = LOGS / "failed" / "vlm-config-empty.log"
    code, out, err = kit(capsys, str(path))
    assert code == ExitCode.OK and err == ""
    assert "vlm_server_config.yaml is empty" in out and "hint: write at least one setting" in out
    assert f"{path}:19: AttributeError: 'NoneType' object" in out
    assert "source: paddlex 3.7.2 measured" in out


def test_a_log_from_stdin_as_json(capsys, monkeypatch) -> None:
    text = "INFO: a\nOSError: [Errno 28] No space left on device\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    code, out, _ = kit(capsys, "-", "--json")
    report = json.loads(out)
    assert code == ExitCode.OK and report["unknown"] is None
    (finding,) = report["findings"]
    assert finding["name"] == "disk-full" and finding["line"] == 2 and finding["fix"] and finding["source"]


def test_unknown_trouble_says_so_and_offers_the_bundle(capsys, tmp_path) -> None:
    log = tmp_path / "a.log"
    log.write_text("INFO: a\nFlubberError: oops\n")
    code, out, _ = kit(capsys, str(log))
    assert code == ExitCode.FAILED
    assert "unknown" in out and f"{log}:2: FlubberError: oops" in out and "./kit diagnose --bundle" in out
    code, out, _ = kit(capsys, str(log), "--json")
    assert code == ExitCode.FAILED and json.loads(out)["unknown"]["line"] == 2


def test_a_healthy_log_has_no_trouble(capsys) -> None:
    code, out, _ = kit(capsys, str(LOGS / "healthy" / "vllm.log"))
    assert code == ExitCode.OK and "no trouble" in out


def test_what_is_no_log_is_refused(workspace, tmp_path) -> None:
    check_error(workspace.kit("diagnose", tmp_path / "none.log"), ExitCode.INPUT, "none.log: No such file")
    check_error(workspace.kit("diagnose", tmp_path), ExitCode.INPUT, "Is a directory")
    check_error(workspace.kit("diagnose", ROOT / "samples" / "invoice.png"), ExitCode.INPUT, "is no text")
    (tmp_path / "empty.log").write_text("")
    check_error(workspace.kit("diagnose", tmp_path / "empty.log"), ExitCode.INPUT, "empty.log is empty")


def test_with_nothing_running_and_nothing_left_behind(workspace) -> None:
    check_error(workspace.kit("diagnose"), ExitCode.START, "no service is running, and none has left a log")


def test_logs_of_what_has_died_are_read(workspace) -> None:
    folder = workspace.path / ".kit" / "logs"
    folder.mkdir()
    (folder / "paddleocr-vlm-server.log").write_bytes((LOGS / "failed" / "vlm-config-empty.log").read_bytes())
    done = workspace.kit("diagnose")
    assert done.returncode == 0, done.stderr
    assert "paddleocr-vlm-server:19:" in done.stdout and "vlm_server_config.yaml is empty" in done.stdout
    shown = workspace.kit("logs", "paddleocr-vlm-server")
    assert "known cause: vlm_server_config.yaml is empty" in shown.stderr and "known cause" not in shown.stdout
    assert "hint: write at least one setting" in shown.stderr
