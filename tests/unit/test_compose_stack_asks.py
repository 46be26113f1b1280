"""What a Compose stack makes of answers that come while containers come and go; by a fake `docker` that plays them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from kit.catalog.settings import Settings
from kit.errors import KitError
from kit.stack import VLM
from kit.stack.compose import ComposeStack, _files_changed
from support import ROOT

CONTAINER = {
    "Id": "0123456789abcdef", "Created": "2026-01-01T00:00:00Z", "RestartCount": 0, "Mounts": [], "State": {"Status": "created"},
    "Config": {"Labels": {
        "com.docker.compose.service": VLM, "com.docker.compose.project.config_files": str(ROOT / "compose.yaml"),
    }},
}  # fmt: skip
FAKE = """#!{python}
import json, sys
words = sys.argv[1:]
if words[0] == "version":
    print("28.5.2")
elif words[0] == "inspect":
    print({found!r})
    if "bf992210bc33" in words:
        sys.exit("Error: No such object: bf992210bc33")
elif "config" in words:
    print(json.dumps({{"name": "one", "services": {{{service!r}: {{}}}}}}))
elif "up" in words:
    sys.exit("dependency failed to start: container one-1 is unhealthy")
elif "ps" in words:
    print({listed!r})
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """It lists a container that is there and one that is gone when it is asked about it."""
    docker = tmp_path / "docker"
    listed = "0123456789abcdef\nbf992210bc33"
    docker.write_text(FAKE.format(python=sys.executable, listed=listed, found=json.dumps([CONTAINER]), service=VLM))
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return docker


@pytest.mark.usefixtures("docker")
def test_a_container_that_goes_between_two_questions_is_no_error() -> None:
    assert [(one.name, one.state) for one in ComposeStack(ROOT, Settings(ROOT, {})).ps()] == [(VLM, "absent")]


@pytest.mark.parametrize("died", [True, False])
def test_what_has_died_is_told_by_its_own_words_and_not_by_composes(docker: Path, died: bool) -> None:
    found = [{**CONTAINER, "State": {"Status": "restarting" if died else "created", "ExitCode": 3}}]
    docker.write_text(docker.read_text().replace(json.dumps([CONTAINER]), json.dumps(found)))
    stack = ComposeStack(ROOT, Settings(ROOT, {}))
    stack.up(lambda line: None)
    stack._up.wait(30)
    if died:
        assert [(one.name, one.has_died) for one in stack.ps()] == [(VLM, True)]
    else:
        with pytest.raises(KitError, match="docker compose up failed: dependency failed to start"):
            stack.ps()


def test_a_service_that_dies_while_it_is_looked_at_is_told_by_the_next_look(docker: Path) -> None:
    """Compose fails after the containers were listed, when none had died yet."""

    class Slow(ComposeStack):
        def containers(self):
            found = super().containers()
            self._up.wait(30)
            return found

    stack = Slow(ROOT, Settings(ROOT, {}))
    script = docker.read_text()
    docker.write_text(script.replace("sys.exit(\"dependency", "__import__('time').sleep(1)\n    sys.exit(\"dependency"))
    stack.up(lambda line: None)
    assert [(one.name, one.has_died) for one in stack.ps()] == [(VLM, False)]
    found = [{**CONTAINER, "State": {"Status": "restarting", "ExitCode": 3}}]
    docker.write_text(script.replace(json.dumps([CONTAINER]), json.dumps(found)))
    assert [(one.name, one.has_died) for one in stack.ps()] == [(VLM, True)]


def test_an_engine_that_lists_nothing_is_told(docker: Path) -> None:
    docker.write_text(
        docker.read_text().replace('elif "ps" in words:', 'elif "ps" in words:\n    sys.exit("permission was refused")')
    )
    with pytest.raises(KitError, match=r"docker ps failed: permission was refused"):
        ComposeStack(ROOT, Settings(ROOT, {})).ps()


@pytest.mark.parametrize(
    ("name", "writable", "counts"),
    [
        ("config.yaml", True, True),  # a file alone
        ("code/gateway.py", False, True),
        ("code/locales/en.json", False, True),
        ("code/__pycache__/gateway.cpython-311.pyc", False, False),  # ./kit itself writes these
        ("data/model.json", True, False),  # by the container
    ],
)
def test_a_change_of_what_is_mounted_counts_and_no_data_does(tmp_path: Path, name: str, writable: bool, counts: bool) -> None:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    mount = {"Type": "bind", "Source": str(tmp_path / Path(name).parts[0]), "RW": writable}
    started = {True: "2001-01-01T00:00:00.0Z", False: "2999-01-01T00:00:00.0Z"}  # before the change, after it
    assert {before: _files_changed({"Mounts": [mount], "State": {"StartedAt": at}}) for before, at in started.items()} == {
        True: counts,
        False: False,
    }
