"""./kit lint as its users meet it: exit codes, output, --fix, other folders, and its call in ./kit up."""

from __future__ import annotations

import copy
import json
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from kit.catalog import settings, vllm_options
from kit.errors import ExitCode
from kit.lint import Severity, fix, lint, load
from support import API, ROOT, VLM, Workspace, check_error

BASE = ROOT / "tests" / "lint" / "base"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of somebody else, with one error that can be mended, and one that cannot."""
    there = tmp_path / "theirs"
    shutil.copytree(BASE, there)
    pipeline = there / "pipeline.yaml"
    pipeline.write_text(pipeline.read_text().replace("8118/v1", "8118").replace("DocLayoutV3", "DocLayoutV2"))
    return there


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# --- our own files


@pytest.mark.parametrize(
    "files",
    [
        "",
        "compose.preview.yaml",
        "compose.yaml compose.engine-20.yaml",
        "compose.yaml compose.models.yaml",
        "compose.yaml compose.offline.yaml compose.models.yaml",
    ],
    ids=["as they are", "preview", "old engine", "volume", "offline, models in a volume"],
)
def test_our_files_have_no_finding(files: str, tmp_path: Path) -> None:
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    shutil.copytree(ROOT / "images", tmp_path / "images")
    # What .env.example shows, switched on.
    (tmp_path / ".env").write_text(re.sub(r"(?m)^#(\w+=)", r"\1", settings.env_example()))
    found = lint(load(tmp_path, {}, files=[tmp_path / name for name in files.split()] or None))
    assert [f"{f.place.file.name}:{f.place.line} {f.rule.id} {f.message}" for f in found] == []


@pytest.mark.parametrize(
    ("files", "tag", "rules"),
    [
        ("compose.yaml compose.offline.yaml", "paddleocr3.6-nvidia-gpu", ["KIT115", "KIT115"]),
        ("compose.yaml compose.offline.yaml", "paddleocr3.6-nvidia-gpu-offline", []),
        ("compose.yaml compose.models.yaml", "paddleocr3.6-nvidia-gpu-offline", ["KIT114", "KIT114"]),
        ("compose.yaml compose.offline.yaml compose.models.yaml", "paddleocr3.6-nvidia-gpu-offline", ["KIT114", "KIT114"]),
    ],
)
def test_our_overlays_with_the_wrong_images_do_not_start(files: str, tag: str, rules: list[str]) -> None:
    names = {"API_IMAGE_TAG_SUFFIX": tag, "VLM_IMAGE_TAG_SUFFIX": tag, "VLM_MODEL_NAME": "PaddleOCR-VL-1.6-0.9B"}
    found = lint(load(ROOT, names, files=[ROOT / name for name in files.split()]))
    assert [finding.rule.id for finding in found if finding.severity is Severity.ERROR and finding.rule.id != "KIT307"] == rules


def test_our_project_is_seen_whole() -> None:
    """Without this, a linter that sees nothing would find nothing."""
    project = load(ROOT, {}, files=[ROOT / "compose.yaml"])
    ((api, vlm),) = project.pairs()
    assert (api.service.name, vlm.service.name) == (API, VLM)
    assert api.config.file == ROOT / "pipeline_config_vllm.yaml" and vlm.config.file == ROOT / "vlm_server_config.yaml"
    assert api.wiring.url.text == f"http://{VLM}:8118/v1" and (vlm.engine, vlm.port) == ("vllm", "8118")


def test_no_option_of_vllm_is_in_two_tables() -> None:
    tables = (vllm_options.SWITCHES, vllm_options.ONLY_ON, vllm_options.VALUED)
    assert sum(map(len, tables)) == len(frozenset.union(*tables))
    named = {*vllm_options.RANGES, *vllm_options.DEFAULTS, *vllm_options.FOREIGN.values(), *vllm_options.OVERRULED}
    assert named <= vllm_options.OPTIONS
    assert not set(vllm_options.FOREIGN) & vllm_options.OPTIONS


# --- the verb


def test_errors_are_named_with_file_and_line_and_end_with_their_code(workspace: Workspace, folder: Path) -> None:
    before = contents(folder)
    done = workspace.kit("lint", folder)
    assert done.returncode == ExitCode.FAILED
    assert f"{folder}/pipeline.yaml:11: error KIT304: http://vlm:8118 does not end in /v1" in done.stdout
    assert f"{folder}/pipeline.yaml:5: error KIT401: PP-DocLayoutV2 beside PaddleOCR-VL-1.6-0.9B" in done.stdout
    assert done.stdout.count("    why: ") == done.stdout.count("    mend: ") == 2
    assert done.stderr == "2 errors; ./kit lint --fix mends 1 of them\n"
    assert contents(folder) == before, "without --fix nothing is written"


def test_json_is_alone_on_stdout(workspace: Workspace, folder: Path) -> None:
    done = workspace.kit("lint", "--json", folder)
    found = json.loads(done.stdout)
    assert done.returncode == ExitCode.FAILED
    assert {entry["id"]: (entry["line"], entry["fixable"], entry["severity"]) for entry in found} == {
        "KIT304": (11, True, "error"),
        "KIT401": (5, False, "error"),
    }
    assert all(set(e) == {"id", "severity", "file", "line", "message", "why", "mend", "fixable"} for e in found)


def test_fix_mends_shows_what_it_changed_and_says_what_is_left(workspace: Workspace, folder: Path) -> None:
    (folder / "pipeline.yaml").chmod(0o640)
    before = (folder / "pipeline.yaml").read_text()
    done = workspace.kit("lint", "--fix", folder)
    assert done.returncode == ExitCode.FAILED, "one error is left"
    assert "KIT401" in done.stdout and "KIT304" not in done.stdout
    assert "mended: " in done.stderr and "+      server_url: http://vlm:8118/v1" in done.stderr
    assert (folder / "pipeline.yaml").read_text() == before.replace("http://vlm:8118", "http://vlm:8118/v1")
    assert stat.S_IMODE((folder / "pipeline.yaml").stat().st_mode) == 0o640
    assert {path.name for path in folder.iterdir()} == {path.name for path in BASE.iterdir()}


def test_warnings_alone_are_no_failure(workspace: Workspace, folder: Path) -> None:
    shutil.copy(BASE / "pipeline.yaml", folder)
    (folder / "compose.override.yaml").write_text("services: {api: {user: root}}\n")
    done = workspace.kit("lint", folder)
    assert done.returncode == ExitCode.OK and "compose.override.yaml:1: warning KIT205" in done.stdout
    assert done.stderr == "1 warning\n"


def test_the_own_project_from_any_folder(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.path / ".env").write_text("API_IMAGE_TAG_SUFFIX=paddleocr3.7-nvidia-gpu\n")
    done = workspace.kit("lint", API_PORT="8080")
    assert done.returncode == ExitCode.FAILED
    assert ".env:1: error KIT107: paddleocr-vl:paddleocr3.7-nvidia-gpu does not exist" in done.stdout
    clean = workspace.kit("lint", API_IMAGE_TAG_SUFFIX="paddleocr3.6-nvidia-gpu")
    assert clean.returncode == ExitCode.OK and clean.stdout == "", "the environment wins over .env"


def test_a_folder_that_cannot_be_checked(workspace: Workspace, tmp_path: Path) -> None:
    check_error(workspace.kit("lint", tmp_path / "none"), ExitCode.INPUT, "no such folder")
    check_error(workspace.kit("lint", ROOT / "README.md"), ExitCode.INPUT, "is a file")
    (tmp_path / "empty").mkdir()
    check_error(workspace.kit("lint", tmp_path / "empty"), ExitCode.INPUT, "no Compose file", "docker-compose.yml")


def test_a_file_that_cannot_be_written_stays_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(Exception, match="No space left on device"):
        fix(lint(load(folder, {})))
    assert contents(folder) == before, "and nothing is left aside"


def test_line_ends_of_windows_and_a_link_are_kept(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.yaml"
    text = (folder / "pipeline.yaml").read_text().replace("  extra:\n    max_num_input_imgs: null\n", "")
    real.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    (folder / "pipeline.yaml").unlink()
    (folder / "pipeline.yaml").symlink_to(real)
    assert {"KIT403", "KIT304"} <= {f.rule.id for f in lint(load(folder, {}))}
    fix(lint(load(folder, {})))
    assert {f.rule.id for f in lint(load(folder, {}))} == {"KIT401"}
    data = real.read_bytes()
    assert (folder / "pipeline.yaml").is_symlink() and data.startswith(b"\xef\xbb\xbf")
    assert data.count(b"\n") == data.count(b"\r\n") == text.count("\n") + 2


def test_paths_of_an_included_file_are_relative_to_it(folder: Path) -> None:
    """And those of a file that COMPOSE_FILE names are relative to the first one's folder."""
    inner = folder / "stack"
    inner.mkdir()
    for name in ("compose.yaml", "pipeline.yaml", "vlm.yaml"):
        (folder / name).rename(inner / name)
    (folder / "compose.yaml").write_text("include: [stack/compose.yaml]\n")
    expected = {("pipeline.yaml", "KIT304"), ("pipeline.yaml", "KIT401")}
    assert {(f.place.file.name, f.rule.id) for f in lint(load(folder, {}))} == expected
    (folder / "compose.yaml").unlink()
    assert {(f.place.file.name, f.rule.id) for f in lint(load(folder, {"COMPOSE_FILE": "stack/compose.yaml"}))} == expected


# --- whatever stands in the files

ODD: tuple[Any, ...] = (
    None,
    "",
    "text",
    7,
    -0.5,
    True,
    [],
    ["a", None, {}],
    {},
    {"a": None},
    [["x"]],
    "${X:-",
    "/",
    ":",
    "a:b:c:d",
)


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield (*path, key)
        yield from _places(value, (*path, key))


@pytest.mark.parametrize("name", ["compose.yaml", "pipeline.yaml", "vlm.yaml"])
def test_nothing_that_stands_in_a_file_breaks_the_linter(name: str, tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    whole = yaml.safe_load((BASE / name).read_text())
    random = Random(name)
    for path in _places(whole):
        for odd in random.sample(ODD, 5):
            changed = copy.deepcopy(whole)
            at = changed
            for key in path[:-1]:
                at = at[key]
            at[path[-1]] = odd
            (tmp_path / name).write_text(yaml.safe_dump(changed, default_flow_style=len(path) % 2 == 0))
            found = lint(load(tmp_path, {}))
            for finding in found:
                assert finding.place.line >= 1
            for mended in fix(found).values():
                yaml.compose(mended[1])
            shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize(
    "text", [b"\xff\xfe", b"a: \x00", b"a: &x [*x]\nb: *x\n", b"? [a]\n: b\n", b"--- 1\n--- 2\n", b"[" * 1200]
)
def test_files_that_are_no_yaml_are_named(text: bytes, tmp_path: Path) -> None:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    for name in ("compose.yaml", "pipeline.yaml", "vlm.yaml"):
        (tmp_path / name).write_bytes(text)
        found = {(f.rule.id, f.place.file.name) for f in lint(load(tmp_path, {}))}
        assert (("KIT001", name) in found) or (("KIT002", name) in found) or (("KIT502", name) in found), found
        shutil.copy(BASE / name, tmp_path)


def test_aliases_of_aliases_end(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    (tmp_path / "vlm.yaml").write_text("\n".join(lines))
    assert ("KIT001", "more than 100000 values") in {(f.rule.id, f.message.split(": ", 1)[-1]) for f in lint(load(tmp_path, {}))}


# --- ./kit up


def test_up_starts_nothing_when_a_file_is_wrong(workspace: Workspace) -> None:
    config = workspace.path / "pipeline_config_vllm.yaml"
    text = config.read_text()
    line = text[: text.index("backend: vllm-server")].count("\n") + 1
    config.write_text(text.replace("backend: vllm-server", "backend: vllm"))
    done = workspace.kit("up", "--local")
    check_error(done, ExitCode.USAGE, f"pipeline_config_vllm.yaml:{line}: backend vllm is unknown (KIT302)", "./kit lint --fix")
    assert workspace.processes() == []


def test_up_of_the_preview_says_warnings_in_a_line_each_and_passes_over_what_it_does_not_use(workspace: Workspace) -> None:
    """The preview brings its own VLM server: where server_url leads is nothing to it."""
    config = workspace.path / "pipeline_config_vllm.yaml"
    text = config.read_text().replace("/v1", "").replace("visualize: False", "visualize: True")
    config.write_text(text)
    found = lint(load(workspace.path, {}, files=[], pipeline=config, preview=True))
    assert [(f.rule.id, f.severity) for f in found] == [("KIT404", Severity.WARNING)]
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends soon
        done = workspace.kit("up", "--local", API_PORT=str(taken.getsockname()[1]))
    assert done.returncode == ExitCode.PORT, f"a warning does not stop it: {done.stderr}"
    (line,) = [line for line in done.stderr.splitlines() if "KIT" in line]
    assert line.startswith("pipeline_config_vllm.yaml:") and "visualize is on (KIT404; " in line
