"""./kit load: what it writes to .env, what it asks of the disk, of a base and of the engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from kit.bundle import wanted
from kit.catalog.settings import Settings
from kit.stack import files
from kit.verbs import load as verb
from test_stack_files import lay

# --- .env


@pytest.mark.parametrize(
    ("environ", "models", "expected"),
    [
        ({}, False, "compose.yaml:compose.offline.yaml:compose.override.yaml"),
        ({}, True, "compose.yaml:compose.models.yaml:compose.offline.yaml:compose.override.yaml"),
        ({"API_REPLICAS": "2"}, False, "compose.yaml:compose.offline.yaml:compose.gateway.yaml:compose.override.yaml"),
        ({"COMPOSE_FILE": "compose.yaml:compose.models.yaml:mine.yaml"}, False, "compose.yaml:compose.offline.yaml:mine.yaml"),
        ({"COMPOSE_FILE": "compose.yaml", "API_REPLICAS": "2"}, False, "compose.yaml:compose.offline.yaml"),
    ],
)
def test_the_files_in_force_stay_so_on_a_host_without_network(
    tmp_path: Path, environ: dict[str, str], models: bool, expected: str
) -> None:
    """The gateway too, which has the keys and the certificate, where API_REPLICAS alone had turned it on."""
    lay(tmp_path, "compose.yaml", "compose.override.yaml")
    settings = Settings(tmp_path, environ)
    assert files.SEPARATOR.join(wanted.compose_files(tmp_path, settings, models=models)) == expected


def test_a_gateway_that_the_replicas_turned_on_stays_when_the_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(tmp_path, "compose.yaml")
    (tmp_path / ".env").write_text("API_REPLICAS=2\nGATEWAY_API_KEYS_FILE=./keys\n")
    monkeypatch.setattr(verb, "ROOT", tmp_path)
    for name in ("API_REPLICAS", "COMPOSE_FILE"):
        monkeypatch.delenv(name, raising=False)
    verb._configure(SimpleNamespace(kind="gpu", settings={}, models=()))
    assert "COMPOSE_FILE=compose.yaml:compose.offline.yaml:compose.gateway.yaml\n" in (tmp_path / ".env").read_text()
