"""The support bundle: everything that helps, and no secret, wherever one was."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from kit.errors import ExitCode
from kit.redact import is_secret_name, redact, secret_values, secrets_in_tree
from support import API, ROOT, VLM, Workspace, check_error

# --- what is a secret


@pytest.mark.parametrize(
    "name",
    "API_KEY api-key apiKey HF_TOKEN hf.token PASSWORD db_password POSTGRES_PASSWD client_secret SECRET AWS_SECRET_ACCESS_KEY "
    "credentials Authorization cookie bos_sk MY_KEY private_key access_token key".split(),
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", "max-num-batched-tokens max_tokens tokenizer model_name keyboard monkey PWD author task disk risk KEYFRAME".split()
)
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("API_KEY=hunter2x", "hunter2x"),
        ("  - HF_TOKEN=hunter2x", "hunter2x"),
        ('{"api_key": "hunter2x", "model": "m"}', "hunter2x"),
        ("{'password': 'hunter2x'}", "hunter2x"),
        ("api_key: hunter2x", "hunter2x"),
        ("PASSWORD=start,{}&)hunter2x", "hunter2x"),
        ("'api_keys': ['hunter2x', 'b']", "hunter2x"),
        ('secret = "hunt er2x"', "er2x"),
        ("Authorization: Bearer hunter2x", "hunter2x"),
        ("'authorization': 'Basic aHVudGVyMng='", "aHVudGVyMng"),
        ("-H 'X-Api-Key: hunter2x'", "hunter2x"),
        ("sent with bearer hunter2x today", "hunter2x"),
        ("http://user:hunter2x@proxy.example:3128/", "hunter2x"),
        ("https://hunter2x@git.example/x.git", "hunter2x"),
        ("HTTP_PROXY=user:hunter2x@proxy.example:3128", "hunter2x"),
        ("GET /file.pdf?access_token=hunter2x&page=1", "hunter2x"),
        ("https://s3.example/a?X-Amz-Signature=hunter2x", "hunter2x"),
        ("loading with hf_hunter2xhunter2x ok", "hf_hunter2x"),
        ("key sk-hunter2xhunter2x", "sk-hunter2x"),
        ("eyJhbGciOi.eyJzdWIiOi.c2lnbmF0dXJl", "eyJzdWIiOi"),
        ("-----BEGIN RSA PRIVATE KEY-----\nhunter2x\nabc\n-----END RSA PRIVATE KEY-----", "hunter2x"),
        ("data:image/png;base64,aHVudGVyMng=", "aHVudGVyMng"),
        ('{"file": "' + "QUJDRGVm" * 40 + '"}', "QUJDRGVmQUJD"),
    ],
)
def test_a_secret_is_known_by_its_shape(text: str, secret: str) -> None:
    assert secret in text and secret not in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "max-num-batched-tokens: 16384",
        "non-default args: {'max_model_len': 16384, 'gpu_memory_utilization': 0.7, 'max_num_batched_tokens': 16384}",
        "tokenizer='/home/paddleocr/.paddlex/official_models/PaddleOCR-VL', tokenizer_mode=auto",
        "Avg prompt throughput: 89.0 tokens/s, Running: 0 reqs",
        "The model `PaddleOCR-VL-0.9B` does not exist.",
        "sha256:ad0b1f056a76967f9191cd06398e8babb21b49a4673a28c3de5fd31f481884db",
        '  File "/usr/local/lib/python3.11/site-packages/paddlex/inference/serving/basic_serving/_app.py", line 66',
        "/usr/local/lib/python3.11/site-packages/paddlex/inference/serving/basic_serving/_pipeline_apps/_common/paddleocr_vl_pipeline_app",
        "server_url: http://paddleocr-vlm-server:8118/v1",
        "api_key: null",
        "API_KEY=${API_KEY}",
    ],
)
def test_what_a_diagnosis_needs_stays(text: str) -> None:
    assert redact(text) == text


def test_real_logs_lose_nothing() -> None:
    for path in (ROOT / "tests" / "logs").rglob("*.log"):
        assert redact(path.read_text()) == path.read_text(), path.name


def test_a_value_that_is_secret_anywhere_is_secret_everywhere() -> None:
    secrets = secret_values({"DB_PASSWORD": "plainword", "X_PROXY": "http://u:pa%24s@h:1", "MODEL": "PaddleOCR", "S_KEY": "abc"})
    assert secrets == {"plainword", "pa%24s", "pa$s"}
    tree = {"a": [{"api_key": ["one1", {"deep": "two2"}]}, "TOKEN=three3"], "b": {"client": {"password": 12345}}, "token": None}
    assert secrets_in_tree(tree) == {"one1", "two2", "three3", "12345"}
    assert "plainword" not in redact("it printed plainword without a name", secrets)


# --- the file

# Planted where a secret can be; each on its own, so that one that is found names its place.
SECRETS = {
    "environment": "planted-in-the-environment",
    "env-file": "planted-in-env-file",
    "env-quoted": "planted in quotes",
    "proxy": "planted-in-proxy",
    "pipeline": "planted-in-pipeline-config",
    "nested": "planted-in-nested-yaml",
    "vlm-config": "planted-in-vlm-config",
    "override": "planted-in-compose-override",
    "log-header": "planted-in-header",
    "log-url": "planted-in-url",
    "log-query": "planted-in-query",
    "log-json": "planted-in-json",
    "log-payload": "cGxhbnRlZC1pbi1wYXlsb2Fk" * 10,
    "comment": "planted-in-comment",
}


@pytest.fixture
def planted(workspace: Workspace) -> Workspace:
    root, plant = workspace.path, SECRETS
    (root / ".env").write_text(
        f"HF_TOKEN={plant['env-file']}\nDB_PASSWORD='{plant['env-quoted']}'\nAPI_SHM_SIZE=5g\n"
        f"HTTPS_PROXY=http://me:{plant['proxy']}@proxy.example:3128\n# old API_KEY={plant['comment']}\n"
    )
    config = root / "pipeline_config_vllm.yaml"
    config.write_text(
        config.read_text().replace(
            "      backend: vllm-server",
            f"      client_kwargs:\n        api_key: {plant['pipeline']}\n"
            f"        default_headers:\n          secret-header:\n            - {plant['nested']}\n      backend: vllm-server",
        )
    )
    with (root / "vlm_server_config.yaml").open("a") as file:
        file.write(f"\napi-key: {plant['vlm-config']}\n")
    (root / "compose.override.yaml").write_text(f"services:\n  {API}:\n    environment:\n      - MY_SECRET={plant['override']}\n")
    logs = root / ".kit" / "logs"
    logs.mkdir()
    (logs / f"{API}.log").write_text(
        f"INFO: request with Authorization: Bearer {plant['log-header']}\n"
        f"fetching https://bob:{plant['log-url']}@files.example/a.pdf?token={plant['log-query']}\n"
        f'body {{"api_key": "{plant["log-json"]}", "file": "{plant["log-payload"]}"}}\n'
        f"echo of {plant['environment']} and {plant['pipeline']} and {plant['env-quoted']} without their names\n"
        "RuntimeError: Exception from the 'vlm' worker: Connection error.\n"
    )
    (logs / f"{VLM}.log").write_text("INFO: api_server_count 4, max_num_batched_tokens=16384\n")
    return workspace


def read(archive: Path) -> dict[str, str]:
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        return {name: file.read(name).decode() for name in file.namelist()}


def test_a_bundle_has_everything_but_the_secrets(planted: Workspace, tmp_path: Path) -> None:
    target = tmp_path / "bundle.zip"
    done = planted.kit("diagnose", "--bundle", target, MY_API_KEY=SECRETS["environment"])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}\n" and " kB" in done.stderr
    files = read(target)
    for place, secret in SECRETS.items():
        for name, text in files.items():
            assert secret not in text and secret not in name, (place, name)
        assert secret.encode() not in target.read_bytes(), place
    assert set(files) >= {"README.txt", "versions.json", "services.json", "diagnosis.json", "doctor.json", "lint.json"}
    assert all(f"  {name}" in done.stderr for name in files)
    assert json.loads(files["versions.json"])["python"]
    (finding,) = json.loads(files["diagnosis.json"])["findings"]
    assert (finding["name"], finding["log"], finding["line"]) == ("vlm-unreachable", API, 5)
    for name in ("doctor.json", "lint.json"):
        assert isinstance(json.loads(files[name]), dict | list), name
    # What is needed to help is still there.
    assert "backend: vllm-server" in files["config/pipeline_config_vllm.yaml"]
    assert "gpu-memory-utilization: 0.7" in files["config/vlm_server_config.yaml"]
    assert "API_SHM_SIZE=5g" in files["config/.env"] and "proxy.example:3128" in files["config/.env"]
    assert "files.example/a.pdf" in files[f"logs/before/{API}.log"]
    assert "max_num_batched_tokens=16384" in files[f"logs/before/{VLM}.log"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".partial"] == []


def test_without_a_path_it_lies_in_the_kits_own_folder(workspace: Workspace) -> None:
    done = workspace.kit("diagnose", "--bundle", "--json")
    report = json.loads(done.stdout)
    path = Path(report["path"])
    assert path.parent == workspace.path / ".kit" / "support" and path.stat().st_size == report["bytes"]
    assert list(read(path)) == report["files"]


def test_a_place_that_cannot_be_written(workspace: Workspace, tmp_path: Path) -> None:
    done = workspace.kit("diagnose", "--bundle", tmp_path / "none" / "b.zip")
    check_error(done, ExitCode.INPUT, "b.zip: No such file or directory", "--bundle PATH")
    check_error(workspace.kit("diagnose", "a.log", "--bundle"), ExitCode.USAGE, "not a file")


def test_a_bundle_is_made_where_the_configuration_is_broken(workspace: Workspace, tmp_path: Path) -> None:
    (workspace.path / "pipeline_config_vllm.yaml").write_text("a: [1")
    (workspace.path / "vlm_server_config.yaml").unlink()
    done = workspace.kit("diagnose", "--bundle", tmp_path / "b.zip")
    assert done.returncode == 0, done.stderr
    files = read(tmp_path / "b.zip")
    assert files["config/pipeline_config_vllm.yaml"] == "a: [1\n" and "config/vlm_server_config.yaml" not in files
