"""A plan as files: .env, the settings of the VLM server, the pipeline config. Texts are made first, written at the end.

What the user wrote stays: in .env every line but those of the keys that the plan decides, byte for byte; in
the two configs every key but those, with its comments. Written are copies, *.local.yaml, which git ignores.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dotenv.parser import parse_stream
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.tokens import CommentToken

from kit.catalog import models
from kit.catalog.backends import NATIVE
from kit.catalog.settings import ENV_FILE, SETTINGS, Settings
from kit.errors import ExitCode, KitError
from kit.plan import KV_BYTES, PAIRS, Placed, Plan
from kit.stack import files

PIPELINE_FILE, VLM_FILE = "pipeline_config.local.yaml", "vlm_server_config.local.yaml"
SHIPPED_PIPELINE, SHIPPED_VLM = "pipeline_config_vllm.yaml", "vlm_server_config.yaml"
SERVED_URL = "http://paddleocr-vlm-server:8118/v1"  # the service of compose.yaml, the port of its command
HEADER = "# By ./kit configure, which changes the keys of its plan and keeps the rest.\n"
ENV_HEADER = "# By ./kit configure. Add what you like: it changes the keys of its plan alone. All of them: .env.example\n"


@dataclass(frozen=True)
class Change:
    """A file to write. before: None where there is none yet. base: the file of which it is an edited copy, if any."""

    path: Path
    before: str | None
    after: str
    base: Path | None = None

    @property
    def title(self) -> str:
        made_of = f", from {self.base.name}" if self.base else ""
        return self.path.name if self.before is not None else f"{self.path.name} (new{made_of})"

    def lines(self) -> list[str]:
        """What goes (-) and what comes (+), against what is there or what it is a copy of."""
        old = self.before if self.before is not None else (_read(self.base) or "") if self.base else ""
        compared = difflib.ndiff(old.splitlines(), self.after.splitlines())
        return [line for line in compared if line[0] in "+-"]


def changes(plan: Plan, root: Path, settings: Settings) -> list[Change]:
    """Every file that must change for `plan`, in the order in which to write them: .env comes last.

    Raises KitError (USAGE) when a config in force is no YAML mapping.
    """
    behind = bool(settings.given("API_REPLICAS"))

    def edit(config: CommentedMap) -> None:
        edit_pipeline(config, plan)
        if plan.replicas or behind:  # queues cost 0.5 s a request, and are of no use behind a gateway (docs/performance.md)
            _put(config, "use_queues", not plan.replicas)

    wanted = [_copy(root / PIPELINE_FILE, _pipeline_base(root, settings), edit)]
    for placed in plan.placed if plan.serves_vlm else ():
        path = root / _vlm_file(placed)
        base = _vlm_base(plan, placed, root, settings)
        wanted.append(_copy(path, base, partial(_edit_vlm, values=vlm_values(plan, placed))))
    for placed in plan.placed[1:]:
        wanted.append(env_change(root / _pair_env(placed), _pair_values(placed, settings)))
    wanted.append(env_change(root / ENV_FILE, env_values(plan, root)))
    return [change for change in wanted if change.before != change.after]


def write(files: Iterable[Change]) -> None:
    """Each file whole or not at all: written aside, then put in place. Raises KitError (ENVIRONMENT)."""
    for change in files:
        target = change.path.resolve()  # a link stays a link
        try:
            mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o644
            handle, aside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "w", newline="") as file:
                    file.write(change.after)
                    file.flush()
                    os.fsync(file.fileno())
                Path(aside).chmod(mode)
                Path(aside).replace(target)
            except BaseException:
                Path(aside).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise KitError(
                f"cannot write {target}: {error.strerror}", "free some space, or own the folder", ExitCode.ENVIRONMENT
            ) from error


def start_commands(plan: Plan) -> list[str]:
    """What starts each of the services of a plan."""
    if plan.topology != PAIRS:
        return ["./kit up"]
    more = [f"docker compose --env-file {ENV_FILE} --env-file {_pair_env(placed)} up -d" for placed in plan.placed[1:]]
    return ["./kit up", *more]


# --- .env


def env_values(plan: Plan, root: Path) -> dict[str, str]:
    """What the plan decides in .env."""
    first = plan.placed[0]
    values = {
        "API_IMAGE_TAG_SUFFIX": plan.family.tag,
        "VLM_MODEL_NAME": plan.model.vlm,
        "API_GPU": first.api.device,
        "PIPELINE_CONFIG": f"./{PIPELINE_FILE}",
    }
    if plan.serves_vlm and first.vlm:
        values |= {
            "VLM_IMAGE_TAG_SUFFIX": plan.family.tag,
            "VLM_BACKEND": plan.backend.name,
            "VLM_GPU": first.vlm.device,
            "VLM_CONFIG": f"./{VLM_FILE}",
        }
    now = _defined(_read(root / ENV_FILE) or "")
    # With its model inside, the VLM server needs nothing from outside.
    cut_off = plan.serves_vlm and plan.family.offline
    if cut_off or plan.replicas or "VLM_NETWORK_INTERNAL" in now:
        values["VLM_NETWORK_INTERNAL"] = str(cut_off).lower()
    if plan.replicas or now.get("API_REPLICAS"):
        values["API_REPLICAS"] = str(plan.replicas or "")
    if plan.replicas and (not plan.serves_vlm or "GATEWAY_VLM" in now):
        values["GATEWAY_VLM"] = _watched_vlm(plan)
    values |= _compose_file(plan, now.get("COMPOSE_FILE"), root)
    if "VLM_URL" in now or plan.vlm_url:
        values["VLM_URL"] = plan.vlm_url
        values["VLM_HOST"] = urlsplit(plan.vlm_url).hostname or ""
    return values


def _watched_vlm(plan: Plan) -> str:
    """What the gateway asks whether the VLM lives: ours, or your own where the gateway's container reaches it; else nothing."""
    parts = urlsplit(plan.vlm_url)
    if plan.serves_vlm:
        return SETTINGS["GATEWAY_VLM"].default
    return plan.vlm_url if parts.scheme == "http" and parts.hostname != "host.docker.internal" else ""


def edited_env(text: str, values: Mapping[str, str]) -> str:
    """`text` with these values; where a key is set twice the last one counts, as for Compose.

    A key that is not set comes after its commented line of .env.example, or at the end.
    """
    bindings = list(parse_stream(io.StringIO(text, newline="")))
    lines = [binding.original.string for binding in bindings]
    newline = "\r\n" if "\r\n" in text else "\n"
    missing = []
    for key, value in values.items():
        places = [n for n, binding in enumerate(bindings) if binding.key == key and binding.value is not None]
        if places:
            if bindings[places[-1]].value != value:
                lines[places[-1]] = _with_value(lines[places[-1]], value)
        else:
            missing.append((key, value))
    body = "".join(lines)
    for key, value in missing:
        added = f"{key}={value}{newline}"
        commented = re.search(rf"^#\s*{key}=[^\r\n]*(\r?\n|\Z)", body, re.MULTILINE)
        at = commented.end() if commented else len(body)
        start = body[:at]
        body = start + (newline if start and not start.endswith("\n") else "") + added + body[at:]
    return body


def _with_value(line: str, value: str) -> str:
    """A line, or lines, of .env with another value; a comment behind an unquoted value stays."""
    head = re.match(r"\s*(?:export\s+)?[^=\s]+[^\S\r\n]*=[^\S\r\n]*", line)
    assert head, line
    rest = line[head.end() :]
    end = re.search(r"\r?\n\Z", rest)
    comment = re.fullmatch(r"[^'\"#\r\n]*?(\s+#[^\r\n]*)?(?:\r?\n)?", rest)
    return head[0] + value + ((comment and comment[1]) or "") + (end[0] if end else "")


def env_change(path: Path, values: Mapping[str, str]) -> Change:
    """A file like .env with these values; a new one says whose it is."""
    before = _read(path)
    return Change(path, before, edited_env(ENV_HEADER if before is None else before, values))


def _defined(text: str) -> dict[str, str]:
    return {binding.key: binding.value or "" for binding in parse_stream(io.StringIO(text)) if binding.key}


def _compose_file(plan: Plan, setting: str | None, root: Path) -> dict[str, str]:
    """COMPOSE_FILE for this plan: your own files, with those of the kit that it needs and without the others."""
    before = files.read_by_compose(root, setting)
    wanted = {
        files.MODELS: files.want_volume(plan.family.tag),
        files.GATEWAY: bool(plan.replicas),
        files.API_ONLY: not plan.serves_vlm,
    }
    after = before
    for name, needed in wanted.items():
        after = files.with_(after, name) if needed else files.without(after, name)
    # An empty COMPOSE_FILE is an error to Compose, so what is not needed is never written.
    return {"COMPOSE_FILE": files.SEPARATOR.join(after)} if setting is not None or after != before else {}


# --- pairs: the first is .env's own, each other one has a small file on top of it


def _pair_env(placed: Placed) -> str:
    return f"{ENV_FILE}.gpu{placed.number}"


def _vlm_file(placed: Placed) -> str:
    return VLM_FILE if not placed.number else f"vlm_server_config.gpu{placed.number}.local.yaml"


def _pair_values(placed: Placed, settings: Settings) -> dict[str, str]:
    name = _defined(_read(settings.root / ENV_FILE) or "").get("COMPOSE_PROJECT_NAME") or "paddleocr-vl"
    return {
        "COMPOSE_PROJECT_NAME": f"{name}-gpu{placed.number}",
        "API_PORT": str(int(settings["API_PORT"]) + placed.number),
        "API_GPU": placed.api.device,
        "VLM_GPU": placed.vlm.device if placed.vlm else placed.api.device,
        "VLM_CONFIG": f"./{_vlm_file(placed)}",
    }


# --- the VLM server's config


def vlm_values(plan: Plan, placed: Placed) -> dict[str, Any]:
    """What the plan decides in the VLM server's config; None takes a key out."""
    budget = placed.vlm_budget
    if budget is None or placed.vlm is None or plan.backend.keys is None:
        return {}
    figures = (budget.utilization, budget.step.model_len, budget.step.batched_tokens, budget.seqs)
    values: dict[str, Any] = dict(zip(plan.backend.keys, figures, strict=True))
    values[KV_BYTES] = budget.kv if placed.vlm.mig and plan.backend.name == "vllm" else None
    if plan.api_servers is not None:
        values["api-server-count"] = plan.api_servers
    return values


def _vlm_base(plan: Plan, placed: Placed, root: Path, settings: Settings) -> Path:
    """The config in force, your own keys in it, unless it was for another engine."""
    in_force = settings.path("VLM_CONFIG") if not placed.number else root / _vlm_file(placed)
    same_engine = settings["VLM_BACKEND"] == plan.backend.name
    return in_force if same_engine and in_force.exists() else root / SHIPPED_VLM


def _edit_vlm(config: CommentedMap, values: Mapping[str, Any]) -> None:
    # PaddleX takes both spellings of a key, and passes both on; the last one wins.
    spelt = {str(key).replace("_", "-"): key for key in config}
    for key, value in values.items():
        if value is None:
            config.pop(spelt.get(key, key), None)
        else:
            _put(config, spelt.get(key, key), value)


# --- the pipeline config


def _pipeline_base(root: Path, settings: Settings) -> Path:
    in_force = settings.path("PIPELINE_CONFIG")
    return in_force if in_force.exists() else root / SHIPPED_PIPELINE


def edit_pipeline(config: CommentedMap, plan: Plan) -> None:
    """Make `config` the plan's, in place. Thresholds change with the layout model alone, so your own survive."""
    _put(config, "pipeline_name", plan.model.pipeline_name)
    modules = _section(config, "SubModules")
    layout = _section(modules, "LayoutDetection")
    if layout.get("model_name") != plan.model.layout:
        _put(layout, "model_name", plan.model.layout)
        _put(layout, "threshold", _threshold(plan.model))
    _put(layout, "batch_size", plan.layout_batch)
    recognition = _section(modules, "VLRecognition")
    _put(recognition, "model_name", plan.model.vlm)
    genai = _section(recognition, "genai_config")
    _put(genai, "backend", plan.backend.client)
    if plan.backend.client == NATIVE:  # what else stands there is for servers, and not read
        _put(recognition, "batch_size", 1)  # PaddlePaddle takes one block at a time (paddlex 3.7.2 source)
        return
    if recognition.get("batch_size") == 1:
        _put(recognition, "batch_size", 4096)
    _put(genai, "server_url", SERVED_URL if plan.serves_vlm else plan.vlm_url)
    _put(genai, "max_concurrency", plan.at_once)
    # A server of your own may know the model by another name; ours knows it by this one.
    if plan.serves_vlm and isinstance(genai.get("client_kwargs"), CommentedMap):
        genai["client_kwargs"].pop("model_name", None)


def _section(config: CommentedMap, key: str) -> CommentedMap:
    if not isinstance(config.get(key), CommentedMap):
        _put(config, key, CommentedMap())
    return config[key]


def _threshold(model: models.Model) -> float | CommentedMap:
    if not isinstance(model.threshold, Mapping):
        return model.threshold
    by_class = CommentedMap(model.threshold)
    for number, name in enumerate(models.LAYOUT_CLASSES):
        by_class.yaml_add_eol_comment(name, number, column=len(f"      {number}: {by_class[number]}  "))
    return by_class


# --- YAML that keeps comments


def _copy(path: Path, base: Path, edit: Callable[[CommentedMap], None]) -> Change:
    text = _read(base)
    if text is None:
        raise KitError(f"cannot read {base}", "git checkout brings the shipped file back", ExitCode.USAGE)
    yaml = _yaml()
    anew = "mend it, or remove it and let it be made anew"
    try:
        config = yaml.load(text)
    except YAMLError as error:
        problem = " ".join(str(error).split())
        raise KitError(f"{base} is no YAML: {problem}", anew, ExitCode.USAGE) from error
    if not isinstance(config, CommentedMap):
        raise KitError(f"{base} has no keys at its top", anew, ExitCode.USAGE)
    edit(config)
    out = io.StringIO()
    yaml.dump(config, out)
    after = out.getvalue()
    return Change(path, _read(path), after if after.startswith(HEADER) else HEADER + after, base)


def _put(config: CommentedMap, key: str, value: Any) -> None:
    """Set a key. A new one comes last, before the comment that follows the map and belongs to what comes next."""
    last = next(reversed(config), None)
    new = key not in config
    config[key] = value
    comment = config.ca.items.get(last, [None] * 4)[2] if new and last is not None else None
    if comment is None:
        return
    own, newline, rest = comment.value.partition("\n")
    if rest:
        comment.value = own + newline
        config.ca.items[key] = [None, None, CommentToken("\n" + rest, comment.start_mark, None), None]
        if not own:
            del config.ca.items[last]


def _yaml() -> YAML:
    yaml = YAML()  # round trip
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    # As PaddleX's own files spell them.
    yaml.representer.add_representer(bool, lambda r, value: r.represent_scalar("tag:yaml.org,2002:bool", str(value)))
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml


def _read(path: Path) -> str | None:
    try:
        with path.open(newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise KitError(f"cannot read {path}: {error}", "mend it, or move it away", ExitCode.USAGE) from error
