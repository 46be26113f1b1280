"""The API's side: which config it was started with, and what it reaches from where it is."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from kit import api
from kit.health import Reach, Wiring, served_names, wiring
from kit.stack import API, Stack
from kit.stack.compose import ComposeStack
from kit.stack.local import LocalStack

SECONDS = 5.0  # for an answer of the VLM
EXEC_SECONDS = 20.0  # for docker compose exec, the answer included

# Both run in the API's container, which has a Python and perhaps no curl. The first prints the file behind
# --pipeline of the first process; the second takes the place of the API's own client, proxies of the environment
# included, reads {"url", "key"} from stdin and prints {"status", "body" or "problem"}.
_CONFIG = r"""
import sys
words = open("/proc/1/cmdline").read().replace("\0", " ").split()
sys.stdout.write(open(words[words.index("--pipeline") + 1], encoding="utf-8").read())
"""
_GET = r"""
import json, sys, urllib.error, urllib.request
asked = json.load(sys.stdin)
headers = {"Authorization": "Bearer " + asked["key"]} if asked["key"] else {}
try:
    with urllib.request.urlopen(urllib.request.Request(asked["url"], headers=headers), timeout=asked["seconds"]) as reply:
        answer = {"status": reply.status, "body": reply.read(1000000).decode("utf-8", "replace")}
except urllib.error.HTTPError as error:
    answer = {"status": error.code, "body": ""}
except (OSError, ValueError) as error:
    answer = {"status": 0, "problem": str(getattr(error, "reason", error))}
json.dump(answer, sys.stdout)
"""


class NotSeen(Exception):
    """It could not be looked at from the API's side; says why."""


def wiring_of(stack: Stack) -> Wiring:
    """What the running API was told of its VLM. Raises NotSeen."""
    try:
        return wiring(yaml.safe_load(_config(stack)))
    except (yaml.YAMLError, ValueError) as error:
        raise NotSeen(f"the API's pipeline config cannot be read: {' '.join(str(error).split())}") from None


def reach(stack: Stack, wired: Wiring) -> Reach:
    """Ask the VLM for its models as the API would. Raises NotSeen."""
    if isinstance(stack, ComposeStack):
        asked = json.dumps({"url": wired.models_url, "key": wired.api_key, "seconds": SECONDS})
        answer: dict[str, Any] = json.loads(_execute(stack, _GET, asked))
    else:
        answer = _get(wired)
    if answer["status"] != 200:
        return Reach(answer["status"], problem=answer.get("problem", ""))
    try:
        return Reach(200, served_names(json.loads(answer["body"])))
    except ValueError:
        return Reach(200, problem="it lists no models")


def _config(stack: Stack) -> str:
    if isinstance(stack, ComposeStack):
        return _execute(stack, _CONFIG)
    assert isinstance(stack, LocalStack)
    try:
        return Path(stack.run / "pipeline_config_preview.yaml").read_text()
    except OSError as error:
        raise NotSeen(f"the API's pipeline config cannot be read: {error.strerror}") from None


def _get(wired: Wiring) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {wired.api_key}"} if wired.api_key else {}
    try:
        with api.client(wired.models_url, SECONDS) as http:
            reply = http.get(wired.models_url, headers=headers)
        return {"status": reply.status_code, "body": reply.text}
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return {"status": 0, "problem": str(error) or type(error).__name__}


def _execute(stack: ComposeStack, script: str, text: str = "") -> str:
    argv = stack.inside(API, "python3", "-c", script)
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=EXEC_SECONDS, cwd=stack.root, env=os.environ
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotSeen(f"docker compose exec: {error}") from None
    if done.returncode:
        raise NotSeen((done.stderr.strip().splitlines() or ["docker compose exec failed"])[-1])
    return done.stdout
