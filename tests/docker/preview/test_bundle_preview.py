"""The whole way of the CPU preview: exported on one engine, carried to another that has no way out, loaded, a page read there."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from bundles import state
from engine import Engine
from kit.stack import API, SERVICES
from project import PREVIEW_IMAGES
from support import SAMPLES, make_workspace
from test_bundle_end_to_end import PORT, bare_environment, ids, went_well
from witness import Sealed, ways_out


@pytest.mark.parametrize("engine", ["current"], indirect=True)
@pytest.mark.parametrize("target", [("debian", {})], indirect=True, ids=["to-debian"])
def test_the_preview_is_carried_to_a_machine_without_network_and_reads_a_page_there(
    engine: Engine, preview_base: str, target: Sealed, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    here = make_workspace(tmp_path / "here")
    here.environment |= engine.environment
    bundle = tmp_path / "bundle"
    exported = here.kit("export", bundle, "--preview", "--part-size", "100MiB")
    assert exported.returncode == 0, exported.stderr
    before = state(bundle)

    # From here on nothing of this clone is used: only what lies in the bundle.
    (tmp_path / "there").mkdir()
    subprocess.run(["tar", "xzf", bundle / "kit.tar.gz", "-C", tmp_path / "there"], check=True)
    (there,) = (tmp_path / "there").iterdir()
    environment = bare_environment(target, tmp_path)

    def kit(*words: str | Path) -> str:
        log = tmp_path / f"calls-{words[0]}"
        return went_well(target.run(there / "kit", *words, log=log, environment=environment, cwd=there), target)

    assert f"verified {len(before)} files" in kit("verify", bundle)
    said = kit("load", bundle)
    assert "./kit up --preview" in said
    references = [PREVIEW_IMAGES[service] for service in SERVICES]
    assert ids(target.engine, references) == ids(engine, references)
    assert ways_out(target.engine, PREVIEW_IMAGES[API]) == []

    assert "# Invoice 2026-0117" in kit("up", "--preview")
    picture = base64.b64encode((SAMPLES / "invoice.png").read_bytes()).decode()
    url = f"http://127.0.0.1:{PORT}"
    status, body = target.engine.get(f"{url}/layout-parsing", {"file": picture, "fileType": 1}, timeout=120)
    assert status == 200, body
    assert "<table" in json.loads(body)["result"]["layoutParsingResults"][0]["markdown"]["text"]
    kit("down")
    assert state(bundle) == before, "nothing of the bundle was changed"
    assert not list((tmp_path / "home").glob(".cache/*")), "nothing was fetched into a cache"
