"""The command line: clear lines, documented exit codes, data on stdout alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from kit import cli
from kit.errors import EXIT_MEANING, ExitCode
from kit.verbs import VERBS
from support import API, ROOT, SAMPLES, Workspace, check_error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "VERB"),
        (["fly"], "invalid choice: 'fly'"),
        (["parse"], "FILE"),
        (["logs", "nobody"], "invalid choice: 'nobody'"),
        (["logs", "-n", "-3"], "invalid number of lines"),
        (["up", "--timeout", "soon"], "invalid seconds value: 'soon'"),
        (["up", "--timeout", "-1"], "--timeout"),
    ],
)
def test_wrong_usage(workspace: Workspace, arguments: list[str], part: str) -> None:
    check_error(workspace.kit(*arguments), ExitCode.USAGE, part)


def test_wrong_setting(workspace: Workspace) -> None:
    check_error(workspace.kit("status", API_PORT="http"), ExitCode.USAGE, "API_PORT=http in the environment")


def test_every_exit_code_is_documented(workspace: Workspace) -> None:
    assert set(EXIT_MEANING) == set(ExitCode)
    shown = workspace.kit("--help").stdout
    for code, meaning in EXIT_MEANING.items():
        assert f"{int(code):3}  {meaning}" in shown


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(workspace: Workspace, verb: str) -> None:
    done = workspace.kit(verb, "--help")
    assert done.returncode == 0 and f"usage: ./kit {verb}" in done.stdout


def test_nothing_runs(workspace: Workspace) -> None:
    status = workspace.kit("status")
    assert status.returncode == ExitCode.START and status.stdout == "not running; ./kit up starts it\n"
    assert json.loads(workspace.kit("status", "--json").stdout)["ready"] is False
    down = workspace.kit("down")
    assert down.returncode == 0 and "nothing was running" in down.stderr
    check_error(workspace.kit("logs"), ExitCode.START, "no service is running")


def test_parse_without_a_service(workspace: Workspace) -> None:
    check_error(workspace.kit("parse", SAMPLES / "invoice.png"), ExitCode.UNREACHABLE, workspace.url, "./kit up")


def test_parse_looks_at_every_file_before_it_sends_one(workspace: Workspace, tmp_path: Path) -> None:
    done = workspace.kit("parse", SAMPLES / "invoice.png", tmp_path / "missing.pdf")
    check_error(done, ExitCode.INPUT, "missing.pdf: no such file")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--pages", "7-3"], "list of pages, such as 3-7,9"),
        (["--max-pages", "0"], "--max-pages"),
        (["--concurrency", "0"], "number from 1 to 256"),
        (["-o", "out", "--format", "md,pdf"], "list of formats (md, json, jsonl, docx, html)"),
        (["--format", "json"], "--format needs a folder"),
        (["--set", "useChartRecogntion=true"], "`useChartRecognition`"),
        (["--set", "topP=7"], "topP"),
        (["--set", "fileType=1"], "./kit parse sets that itself"),
        (["--set", "topP"], "setting NAME=VALUE"),
    ],
)
def test_options_of_parse(capsys: pytest.CaptureFixture[str], options: list[str], part: str) -> None:
    assert cli.main(["parse", str(SAMPLES / "invoice.png"), *options]) == ExitCode.USAGE
    out, talk = capsys.readouterr()
    assert not out and talk.startswith("error: ") and "\nhint: " in talk and part in talk


def test_parse_with_a_wrong_address(workspace: Workspace) -> None:
    for url in ("localhost:8080", "ftp://127.0.0.1", "http://"):
        check_error(workspace.kit("parse", SAMPLES / "invoice.png", "--url", url), ExitCode.USAGE, url)


def test_a_reader_that_leaves_is_no_error(workspace: Workspace) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{workspace.path}/kit --help | head -1"], capture_output=True, text=True, env=workspace.environment
    )
    assert done.stdout.startswith("usage: ./kit") and "Traceback" not in done.stderr


def test_port_of_another_program_is_named(workspace: Workspace) -> None:
    # It chooses its port itself: a probe from here, at the moment of its bind, would take the port away.
    listen = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); s.accept()"
    with subprocess.Popen(["python3", "-c", listen], stdout=subprocess.PIPE, text=True) as other:
        try:
            port = int(other.stdout.readline())
            done = workspace.kit("up", "--local", API_PORT=str(port))
            check_error(
                done, ExitCode.PORT, f"port {port} is held by python3", f"pid {other.pid}", f"API_PORT={port + 1} ./kit up"
            )
            done = workspace.kit("up", "--local", PREVIEW_VLM_PORT=str(port))
            check_error(done, ExitCode.PORT, f"port {port} is held by", f"PREVIEW_VLM_PORT={port + 1}")
        finally:
            other.kill()
    assert workspace.processes() == []


def test_a_pipeline_config_that_is_none(workspace: Workspace) -> None:
    for text in ("", "just text", "a: [1", "SubModules: {}"):
        (workspace.path / "bad.yaml").write_text(text)
        done = workspace.kit("up", "--local", PIPELINE_CONFIG="./bad.yaml")
        check_error(done, ExitCode.USAGE, "bad.yaml is not a pipeline config")
    check_error(workspace.kit("up", "--local", PIPELINE_CONFIG="./none.yaml"), ExitCode.USAGE, "none.yaml: No such file")


def test_the_readme_names_every_verb_and_no_other() -> None:
    import re

    text = (ROOT / "README.md").read_text()
    used = set(re.findall(r"\./kit (\w+)", text))
    assert used == set(VERBS)
    assert API in text
