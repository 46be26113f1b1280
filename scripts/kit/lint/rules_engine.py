"""KIT5xx: the config of the VLM server, whose keys become options of vLLM."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator

import yaml

from kit.catalog import backends, models
from kit.catalog import vllm_options as vllm
from kit.facts.gpus import Gpu
from kit.lint import mend
from kit.lint.findings import Edit, Hit, Place, Rules, Severity
from kit.lint.project import Config, Project, Vlm
from kit.lint.services import Service
from kit.lint.tree import Mapping, Node, Scalar, Sequence, find
from kit.plan import memory

rules = Rules()
ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO
GENEROUS = vllm.DEFAULTS["max-num-batched-tokens"]
MODEST = 16384  # vLLM's recipe for PaddleOCR-VL (vllm-project/recipes), and PaddleX's own value for Intel cards


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _configs(project: Project) -> Iterator[tuple[Vlm, Config, Mapping]]:
    """VLM configs that PaddleX turns into options of vLLM."""
    for vlm, config in project.engines:
        if vlm.engine == "vllm" and vlm.kind == "genai" and isinstance(config.tree, Mapping):
            yield vlm, config, config.tree


def _values(project: Project) -> Iterator[tuple[Config, Mapping, str, Node]]:
    for _, config, tree in _configs(project):
        for key, value in tree.items.items():
            yield config, tree, key, value


@rules(
    "KIT501",
    ERROR,
    "`false` in the VLM config, which switches ON",
    why="PaddleX passes any boolean as a bare flag: `enforce-eager: false` becomes --enforce-eager (paddlex 3.7.2 source, "
    "genai/configs/utils.py, backend_config_to_args; measured)",
    mend="no-KEY: true, or remove the line",
)
def false_is_true(project: Project) -> Iterator[Hit]:
    for config, tree, key, value in _values(project):
        if not isinstance(value, Scalar) or value.value is not False:
            continue
        name, at = _plain(key), tree.keys[key]
        if name in vllm.SWITCHES:
            edits: tuple[Edit, ...] = (Edit(at.file, at.start, at.end, f"no-{name}"), *mend.put(value, "true"))
            words = f"write no-{name}: true"
        elif name.removeprefix("no-") in vllm.SWITCHES:
            edits = (Edit(at.file, at.start, at.end, name.removeprefix("no-")), *mend.put(value, "true"))
            words = f"write {name.removeprefix('no-')}: true"
        else:
            edits, words = mend.drop(config.text, tree, key), f"remove {key}"
        yield Hit(at, f"{key}: {value.source or 'false'} switches {name} on", edits, words)


@rules(
    "KIT502",
    ERROR,
    "a key that vLLM does not have",
    why="`error: unrecognized arguments` and exit 2 (vLLM 0.10.2, measured)",
    mend="correct the name; docs of vLLM 0.10.2: `vllm serve --help`",
)
def unknown_key(project: Project) -> Iterator[Hit]:
    for _, tree, key, _ in _values(project):
        name, at = _plain(key), tree.keys[key]
        if name in vllm.OPTIONS:
            continue
        beginnings = sorted(option for option in vllm.OPTIONS if option.startswith(name))
        if len(beginnings) == 1:
            edits = (Edit(at.file, at.start, at.end, beginnings[0]),)
            yield Hit(at, f"{key} works as an abbreviation of {beginnings[0]}, for now", edits, f"write {beginnings[0]}", WARNING)
            continue
        if name in vllm.FOREIGN:
            yield Hit(at, f"{key} belongs to another engine", mend=f"vLLM calls it {vllm.FOREIGN[name]}")
            continue
        near = difflib.get_close_matches(name, vllm.OPTIONS, n=2, cutoff=0.8)
        ratios = [difflib.SequenceMatcher(None, name, option).ratio() for option in near]
        sure = len(near) == 1 or (len(near) == 2 and ratios[0] - ratios[1] > 0.05)
        edits = (Edit(at.file, at.start, at.end, near[0]),) if sure and ratios[0] > 0.88 else ()
        yield Hit(at, f"vLLM has no option {name}", edits, f"did you mean {near[0]}?" if near else "")


@rules(
    "KIT503",
    ERROR,
    "a value that vLLM's command line cannot take",
    why="PaddleX writes `--key str(value)`: nothing becomes `None`, a mapping becomes Python instead of JSON, and a quoted "
    '"true" is taken for the name of the model (paddlex 3.7.2 and vLLM 0.10.2, measured)',
    mend="a number or a word; JSON in single quotes; true without quotes",
)
def wrong_shape(project: Project) -> Iterator[Hit]:
    for config, tree, key, value in _values(project):
        name, at = _plain(key), tree.keys[key]
        if isinstance(value, (Mapping, Sequence)):
            written = config.text[value.place.start : value.place.end]
            edits: tuple[Edit, ...] = ()
            if written[:1] in "{[" and "\n" not in written and "'" not in written:
                edits = (Edit(at.file, value.place.start, value.place.end, f"'{json.dumps(yaml.safe_load(written))}'"),)
            yield Hit(
                at, f"{key} is a {'mapping' if isinstance(value, Mapping) else 'list'}", edits, "write JSON in single quotes"
            )
        elif value.value is None:
            yield Hit(at, f"{key} has no value", mend="give it one, or remove the line")
        elif isinstance(value.value, str) and name in vllm.SWITCHES | vllm.ONLY_ON and value.value.lower() in ("true", "false"):
            on = value.value.lower() == "true"
            edits = mend.put(value, "true") if on else ()
            if not on and name in vllm.SWITCHES:
                edits = (Edit(at.file, at.start, at.end, f"no-{name}"), *mend.put(value, "true"))
            yield Hit(at, f"{key}: {value.source} is a text", edits, f"write {key if on else f'no-{name}'}: true")
        elif name in vllm.SWITCHES | vllm.ONLY_ON and not isinstance(value.value, bool):
            yield Hit(at, f"{key} is a switch and takes no value", mend=f"write {key}: true")
        elif name in vllm.VALUED and isinstance(value.value, bool) and value.value:
            yield Hit(at, f"{key} wants a value, not true", mend="give it a value")


def number(value: Scalar) -> float | None:
    """A number as vLLM reads it, 16k and 16K included; None when it is none (vLLM 0.10.2 source, human_readable_int)."""
    if isinstance(value.value, bool):
        return None
    if isinstance(value.value, (int, float)):
        return value.value
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG])", value.text):
        power = "kmg".index(match[2].lower()) + 1
        return float(match[1]) * (1000 if match[2].islower() else 1024) ** power
    try:
        return float(value.text)
    except ValueError:
        return None


@rules(
    "KIT504",
    ERROR,
    "a value out of its range",
    why="vLLM ends: `GPU memory utilization must be less than 1.0. Got 1.5.`, `greater than the derived max_model_len`, "
    "`invalid float "
    "value` (vLLM 0.10.2, measured)",
    mend="write a value in the range",
)
def out_of_range(project: Project) -> Iterator[Hit]:
    for _, _, key, value in _values(project):
        limits = vllm.RANGES.get(_plain(key))
        if limits is None or not isinstance(value, Scalar) or value.value is None or isinstance(value.value, bool):
            continue
        amount = number(value)
        if amount is None or not limits.holds(amount):
            yield Hit(value.place, f"{key}: {value.text}", mend=f"{limits}")


def _setting(vlm: Vlm, key: str) -> tuple[float, Scalar | None]:
    """A number of the config, or PaddleX's own value for it; and where it is written."""
    value = vlm.setting(key)
    amount = number(value) if value else None
    return (vllm.DEFAULTS[key], value) if amount is None else (amount, value)


@rules(
    "KIT505",
    ERROR,
    "max-num-batched-tokens does not go with its neighbours",
    why="`max_num_batched_tokens … is smaller than max_model_len` where chunked prefill is off; `must be greater than or "
    "equal to "
    "max_num_seqs` always (vLLM 0.10.2 source, config/scheduler.py)",
    mend="raise max-num-batched-tokens, or lower the other one",
)
def neighbours(project: Project) -> Iterator[Hit]:
    for vlm, _, tree in _configs(project):
        tokens, written = _setting(vlm, "max-num-batched-tokens")
        length, length_at = _setting(vlm, "max-model-len")
        seqs, seqs_at = _setting(vlm, "max-num-seqs")
        place = (written or length_at or seqs_at or Scalar(None, tree.place)).place
        off = vlm.setting("no-enable-chunked-prefill")
        if off and off.value is True and tokens < length:
            yield Hit(place, f"{tokens:.0f} batched tokens, {length:.0f} max-model-len and no chunked prefill")
        if seqs_at and tokens < seqs:  # where it is not set, vLLM lowers it by itself
            yield Hit(place, f"{tokens:.0f} batched tokens for {seqs:.0f} max-num-seqs")


def card_of(service: Service, project: Project) -> Gpu | None:
    """The card that a service reserves; None where none is known, or where it is given more than one."""
    cards = [card for card in (project.nvidia.gpus if project.nvidia else ()) if card.memory_total and not card.mig_enabled]
    devices = service.get("deploy", "resources", "reservations", "devices")
    ids = [
        item.text
        for device in (devices.items if isinstance(devices, Sequence) else ())
        if isinstance(listed := find(device, "device_ids"), Sequence)
        for item in listed.items
        if isinstance(item, Scalar)
    ]
    if not ids:
        return cards[0] if len(cards) == 1 else None
    return next((card for card in cards if len(ids) == 1 and ids[0] in (str(card.index), card.uuid)), None)


@rules(
    "KIT506",
    WARNING,
    "more batched tokens than the card has memory for",
    why="vLLM sets memory aside for so many tokens of pictures at once: PaddleX's default of 131072 is 668 pictures, and "
    "leaves small cards "
    "no KV cache: `No available memory for the cache blocks` (OCR#17359, OCR#17371, vllm#31372)",
    mend="max-num-batched-tokens: 16384; ./kit configure finds the value for this card",
)
def too_many_tokens(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        if vlm.engine != "vllm" or vlm.kind != "genai":
            continue
        tokens, written = _setting(vlm, "max-num-batched-tokens")
        seqs, _ = _setting(vlm, "max-num-seqs")
        use, _ = _setting(vlm, "gpu-memory-utilization")
        place = written.place if written else Place(vlm.config.file, 1) if vlm.config else vlm.place
        said = f"max-num-batched-tokens: {tokens:.0f}" if written else f"no max-num-batched-tokens, which means {GENEROUS}"
        edits = mend.put(written, str(MODEST)) if written else ()
        if not written and vlm.config and isinstance(vlm.config.tree, Mapping) and vlm.config.tree.items:
            edits = mend.add(vlm.config.text, vlm.config.tree, f"max-num-batched-tokens: {MODEST}")
        card = card_of(vlm.service, project)
        if card is None:
            if tokens >= GENEROUS:
                yield Hit(place, said, edits)
            continue
        need = models.WEIGHTS_FILE + memory.RUNTIME + memory.profile_peak(int(tokens), int(seqs))
        if need > use * card.memory_total:
            gib = f"about {need / memory.GIB:.0f} GiB of the {use * card.memory_total / memory.GIB:.1f} GiB share on {card.name}"
            severity = ERROR if need > card.memory_total else WARNING
            smaller = memory.profile_peak(MODEST, int(seqs)) < memory.profile_peak(int(tokens), int(seqs))
            yield Hit(place, f"{said}: wants {gib}", edits if smaller else (), severity=severity)


@rules(
    "KIT507",
    WARNING,
    "a key stands twice, once with dashes and once with underscores",
    why="PaddleX makes both the same option, and the last one counts (paddlex 3.7.2, measured)",
    mend="keep one",
)
def two_spellings(project: Project) -> Iterator[Hit]:
    for _, _, tree in _configs(project):
        seen: dict[str, str] = {}
        for key in tree.items:
            if _plain(key) in seen:
                yield Hit(tree.keys[key], f"{key} and {seen[_plain(key)]} are one option")
            seen[_plain(key)] = key


@rules(
    "KIT508",
    WARNING,
    "host, port or model in the VLM config",
    why="the command line wins, whatever stands here (paddlex 3.7.2 source, genai/backends/vllm.py)",
    mend="say it in the command: --host, --port, --model_dir",
)
def overruled(project: Project) -> Iterator[Hit]:
    for config, tree, key, _ in _values(project):
        if _plain(key) in vllm.OVERRULED:
            yield Hit(tree.keys[key], f"{key} is never used", mend.drop(config.text, tree, key))


@rules(
    "KIT509",
    WARNING,
    "the VLM's share leaves the layout model no room on their common card",
    why="the layout model loads after the VLM, into what is left, and needs about 2 GiB (OCR#17064)",
    mend="lower gpu-memory-utilization, or give the API another card",
)
def no_room(project: Project) -> Iterator[Hit]:
    for api, vlm in project.pairs():
        if api.service is None or vlm.engine != "vllm" or vlm.kind != "genai":
            continue
        use, written = _setting(vlm, "gpu-memory-utilization")
        if written is None or not _same_card(api.service, vlm.service):
            continue
        card = card_of(vlm.service, project)
        if card:
            rest = sum(part.size for part in memory.layout_parts(1)) + memory.CONTEXT + memory.GRAPHS
            if use * card.memory_total + rest > card.memory_total:
                left = (1 - use) * card.memory_total / memory.GIB
                yield Hit(
                    written.place, f"gpu-memory-utilization {use:g} leaves {left:.1f} GiB of {card.name} for the layout model"
                )
        elif 0.9 < use < 1:
            yield Hit(written.place, f"gpu-memory-utilization {use:g} on the card of the API")


def _same_card(one: Service, other: Service) -> bool:
    def devices(service: Service) -> list[str]:
        node = service.get("deploy", "resources", "reservations", "devices")
        lists = [find(device, "device_ids") for device in (node.items if isinstance(node, Sequence) else ())]
        return [
            item.text for listed in lists if isinstance(listed, Sequence) for item in listed.items if isinstance(item, Scalar)
        ]

    return bool(devices(one)) and devices(one) == devices(other)


@rules(
    "KIT510",
    ERROR,
    "the engine does not run on this card",
    why="vLLM, SGLang and FastDeploy need compute capability 8.0 or newer; FastDeploy and SGLang end below 12.0; on 7.x vLLM "
    "may start, with "
    "timeouts and errors (PaddleOCR-VL documentation; OCR#16823, OCR#17014)",
    mend="./kit configure names what works on this machine",
)
def wrong_card(project: Project) -> Iterator[Hit]:
    for vlm in project.vlms:
        backend, card = backends.find(vlm.engine), card_of(vlm.service, project)
        if backend and card and card.capability != (0, 0) and not backend.runs_on(card.capability):
            capability = ".".join(map(str, card.capability))
            severity = WARNING if backend.name == "vllm" and card.capability >= (7, 0) else ERROR
            yield Hit(vlm.place, f"{backend.name} on {card.name}, compute capability {capability}", severity=severity)
