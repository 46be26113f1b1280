"""Upstream's request fields, as JSON Schema: one table for the checks, for OpenAPI and for the tests.

Source: paddlex/inference/serving/schemas/paddleocr_vl.py and shared/*.py, 3.7.2; tests/stack/test_gateway_schema.py
holds this table against those very classes, so that drift is seen. What is narrower here, and why:

- A field that upstream does not have is an error; upstream ignores it.
- Types are meant: "true" is no boolean, true is no number. NaN and Infinity are no JSON.
- Largest values, where a larger one costs memory or makes the VLM refuse: pixels, tokens, ratios.
- Class ids in objects are numbers; vlmExtraArgs takes what PaddleX passes on.
- logId: what is safe in a log and as the name of a folder (PaddleX stores pictures under it).
- /restructure-pages: pages are those of a reply, at least one, and pictures are base64: PaddleX would fetch a URL.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from kit.documents import IMAGE, PDF

Schema = dict[str, Any]

SHOWN = 5  # problems of one request; each unknown field is compared with all that there are
MAX_PIXELS = 16_777_216  # of one crop; the model's own default is 1,003,520, 1,605,632 for spotting
MAX_TOKENS = 131_072  # context of the model (max_position_embeddings)
CLASS_ID = r"^[0-9]{1,4}$"
LOG_ID = r"^[A-Za-z0-9][A-Za-z0-9._:@=+-]{0,127}$"

_BOOL: Schema = {"type": "boolean"}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_RATIO: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_PAIR: Schema = {"type": "array", "items": _RATIO, "minItems": 2, "maxItems": 2}
_MODE: Schema = {"enum": ["large", "small", "union"]}
_PIXELS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_PIXELS}
_TOKENS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_TOKENS}
_PENALTY: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 100}
_TEMPERATURE: Schema = {"type": "number", "minimum": 0, "maximum": 100}
_TOP_P: Schema = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}


_UNKNOWN = "unknown field"
_KINDS = ("ocr", "table", "chart", "formula", "seal")


def _by_class(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema, "propertyNames": {"pattern": CLASS_ID}}


@dataclass(frozen=True)
class Field:
    """One field. nullable: null means the service's own default. required: must be there."""

    name: str
    schema: Schema
    meaning: str
    nullable: bool = True
    required: bool = False


_FORMATS = Field(
    "outputFormats",
    {"type": "array", "items": {"enum": ["docx"]}, "maxItems": 4},
    'further formats of each page, such as ["docx"]',
)
LOG_ID_FIELD = Field("logId", {"type": "string", "pattern": LOG_ID}, "comes back in the reply and stands in all logs")
_ALIKE = (
    Field("prettifyMarkdown", _BOOL, "centred pictures and tables in the Markdown", nullable=False),
    Field("showFormulaNumber", _BOOL, "numbers of formulas in the Markdown", nullable=False),
    Field("returnMarkdownImages", _BOOL, "pictures that the Markdown shows; since PaddleX 3.7", nullable=False),
    Field("mergeTables", _BOOL, "tables that go over a page break become one", nullable=False),
    Field("relevelTitles", _BOOL, "levels of titles over all pages", nullable=False),
    _FORMATS,
    LOG_ID_FIELD,
)

LAYOUT_PARSING: tuple[Field, ...] = (
    Field("file", {"type": "string", "minLength": 1}, "the document: base64, or a URL where these are allowed", False, True),
    Field("fileType", {"enum": [PDF, IMAGE]}, "0 PDF, 1 picture; required with base64"),
    Field("useDocOrientationClassify", _BOOL, "turn pages upright; needs a model that is not loaded by default"),
    Field("useDocUnwarping", _BOOL, "flatten photographed pages; needs a model that is not loaded by default"),
    Field("useLayoutDetection", _BOOL, "find blocks first; else the page is read as one block"),
    Field("useChartRecognition", _BOOL, "read charts as tables"),
    Field("useSealRecognition", _BOOL, "read seals"),
    Field("useOcrForImageBlock", _BOOL, "read text in pictures"),
    Field("layoutThreshold", {"anyOf": [_SHARE, _by_class(_SHARE)]}, "least score of a block, for all classes or by class id"),
    Field("layoutNms", _BOOL, "drop blocks that overlap"),
    Field("layoutUnclipRatio", {"anyOf": [_RATIO, _PAIR, _by_class({"anyOf": [_RATIO, _PAIR]})]}, "grow blocks by a factor"),
    Field("layoutMergeBboxesMode", {"anyOf": [_MODE, _by_class(_MODE)]}, "what becomes of blocks within blocks"),
    Field("layoutShapeMode", {"enum": ["rect", "quad", "poly", "auto"]}, "shape of blocks", nullable=False),
    Field("promptLabel", {"enum": ["ocr", "formula", "table", "chart", "seal", "spotting"]}, "how to read, without layout"),
    Field("formatBlockContent", _BOOL, "blocks in the JSON as Markdown"),
    Field("repetitionPenalty", _PENALTY, "of the VLM"),
    Field("temperature", _TEMPERATURE, "of the VLM"),
    Field("topP", _TOP_P, "of the VLM"),
    Field("minPixels", _PIXELS, "a block is scaled up to so many pixels; not above maxPixels"),
    Field("maxPixels", _PIXELS, "a block is scaled down to so many pixels"),
    Field("maxNewTokens", _TOKENS, "longest answer of the VLM for a block"),
    Field("mergeLayoutBlocks", _BOOL, "join blocks of one paragraph"),
    Field(
        "markdownIgnoreLabels", {"type": "array", "items": {"type": "string", "maxLength": 64}, "maxItems": 64},
        "kinds of blocks that are left out of the Markdown",
    ),
    Field(
        "vlmExtraArgs",
        {
            "type": "object",
            "properties": {
                **{f"{kind}_{end}_pixels": _PIXELS for kind in _KINDS for end in ("min", "max")},
                **{"min_pixels": _PIXELS, "max_pixels": _PIXELS, "max_new_tokens": _TOKENS},
                **{"repetition_penalty": _PENALTY, "temperature": _TEMPERATURE, "top_p": _TOP_P},
            },
            "additionalProperties": False,
        },
        "further settings of the VLM",
    ),
    Field("restructurePages", _BOOL, "join what belongs together over page breaks", nullable=False),
    Field("visualize", _BOOL, "pictures of the pages with their blocks: more than ten times the bytes"),
    *_ALIKE,
)  # fmt: skip

_BLOCK: Schema = {
    "type": "object",
    "required": ["block_label", "block_content", "block_bbox"],
    "properties": {
        "block_label": {"type": "string"},
        "block_content": {"type": "string"},
        "block_bbox": {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4},
        "image": {"type": "null"},
    },
}
_SIZE: Schema = {"anyOf": [{"type": "number", "minimum": 0}, {"type": "array", "items": {"type": "number"}, "maxItems": 4096}]}
_PRUNED: Schema = {
    "type": "object",
    "required": ["parsing_res_list", "model_settings", "width", "height", "page_count"],
    "properties": {
        "parsing_res_list": {"type": "array", "items": _BLOCK},
        "model_settings": {"type": "object", "required": ["use_doc_preprocessor", "use_layout_detection"], "properties": {}},
        "width": _SIZE,
        "height": _SIZE,
    },
}
_PICTURES: Schema = {"type": "object", "additionalProperties": {"type": "string", "not-url": True}}
_PAGE: Schema = {
    "type": "object",
    "required": ["prunedResult"],
    "properties": {"prunedResult": _PRUNED, "markdownImages": {"anyOf": [_PICTURES, {"type": "null"}]}},
    "additionalProperties": False,
}
RESTRUCTURE_PAGES: tuple[Field, ...] = (
    Field(
        "pages",
        {"type": "array", "items": _PAGE, "minItems": 1},
        "prunedResult and pictures of each page of a reply",
        False,
        True,
    ),
    Field("concatenatePages", _BOOL, "one result for all pages", nullable=False),
    *_ALIKE,
)

# Names that other OCR services and PaddleOCR's own Python interface use.
_ELSEWHERE = {"filetype": "fileType", "image": "file", "url": "file", "pdf": "file", "data": "file", "base64": "file",
              "document": "file", "max_tokens": "maxNewTokens", "maxTokens": "maxNewTokens", "prompt": "promptLabel",
              "returnImages": "returnMarkdownImages"}  # fmt: skip


def problems(payload: dict[str, Any], fields: tuple[Field, ...]) -> list[tuple[str, str]]:
    """What is wrong with a request: (cause, sentence) each, unknown fields first, at most SHOWN; empty when nothing is.

    payload: the parsed body. Causes are names in kit.gateway.causes.
    """
    known = {field.name: field for field in fields}
    unknown = [name for name in payload if name not in known]
    found = [("unknown-field", _unknown(name, list(known))) for name in unknown[:SHOWN]]
    for field in fields:
        if field.name not in payload:
            if field.required:
                found.append(("bad-field", f"`{field.name}` is required: {field.meaning}"))
            continue
        value = payload[field.name]
        if value is None and field.nullable:
            continue
        if reason := _mismatch(value, field.schema, field.name, field.nullable):
            found.append(("unknown-field" if reason.startswith(_UNKNOWN) else "bad-field", reason))
    low, high = payload.get("minPixels"), payload.get("maxPixels")
    if not found and low is not None and high is not None and low > high:
        found.append(("bad-field", f"`minPixels` ({low}) is above `maxPixels` ({high})"))
    return found[:SHOWN]


def schema_of(fields: tuple[Field, ...]) -> Schema:
    """The request as JSON Schema, for OpenAPI."""
    properties = {}
    for field in fields:
        schema = _public(field.schema)
        if field.nullable:
            schema = {"anyOf": [schema, {"type": "null"}]}
        properties[field.name] = {**schema, "description": field.meaning}
    required = [field.name for field in fields if field.required]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _public(schema: Any) -> Any:
    """Without the one keyword that is ours alone."""
    if isinstance(schema, dict):
        return {key: _public(value) for key, value in schema.items() if key != "not-url"}
    return [_public(part) for part in schema] if isinstance(schema, list) else schema


def _unknown(name: str, known: list[str], where: str = "") -> str:
    meant = _ELSEWHERE.get(name) if _ELSEWHERE.get(name) in known else None
    if meant is None:
        plain = {_plain(one): one for one in known}
        close = difflib.get_close_matches(_plain(name), plain, 1, cutoff=0.7)
        meant = plain[close[0]] if close else None
    said = f"{_UNKNOWN} {_shown(where + name)}"
    return f"{said}; did you mean `{where}{meant}`?" if meant else f"{said}; /openapi.json lists the fields"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _mismatch(value: Any, schema: Schema, where: str, nullable: bool = False) -> str:
    """One sentence on what is wrong with a value, or an empty text."""
    if "anyOf" in schema:
        reasons = [_mismatch(value, part, where) for part in schema["anyOf"]]
        if not all(reasons):
            return ""
        inner = [
            r
            for part, r in zip(schema["anyOf"], reasons, strict=True)
            if _is_type(value, part.get("type")) and part.get("type") == "object"
        ]
        return inner[0] if inner else _wrong(value, schema, where, nullable)
    if "enum" in schema:
        same = any(type(value) is type(one) and value == one for one in schema["enum"])
        return "" if same else _wrong(value, schema, where, nullable)
    if not _is_type(value, schema.get("type")) or not _in_bounds(value, schema):
        return _wrong(value, schema, where, nullable)
    if isinstance(value, str) and schema.get("not-url") and re.match(r"\s*(https?|ftp|file):", value, re.IGNORECASE):
        return f"`{where}` must be base64; the gateway lets no URL through to the API"
    if isinstance(value, list):
        return next((r for i, one in enumerate(value) if (r := _mismatch(one, schema["items"], f"{where}[{i}]"))), "")
    if isinstance(value, dict):
        return _object(value, schema, where)
    return ""


def _object(value: dict[str, Any], schema: Schema, where: str) -> str:
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"`{where}.{missing[0]}` is missing"
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    pattern = schema.get("propertyNames", {}).get("pattern")
    for name, one in value.items():
        if pattern and not re.fullmatch(pattern, name):
            return f'`{where}` takes class ids as names, such as "22"; it has {_shown(name)}'
        part = properties.get(name, others)
        if part is False:
            return _unknown(name, list(properties), f"{where}.")
        if isinstance(part, dict) and (reason := _mismatch(one, part, f"{where}.{name}"[:200])):
            return reason
    return ""


def _is_type(value: Any, kind: str | None) -> bool:
    if kind == "integer":
        return type(value) is int or (type(value) is float and value.is_integer())
    if kind == "number":
        return type(value) is int or (type(value) is float and math.isfinite(value))
    types = {"boolean": bool, "string": str, "array": list, "object": dict, "null": type(None), None: object}
    return isinstance(value, types[kind])


def _in_bounds(value: Any, schema: Schema) -> bool:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (
            value >= schema.get("minimum", value)
            and value <= schema.get("maximum", value)
            and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        )
    if isinstance(value, str):
        fits = "pattern" not in schema or re.fullmatch(schema["pattern"], value) is not None
        return fits and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
    if isinstance(value, list):
        return schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
    return True


def _wrong(value: Any, schema: Schema, where: str, nullable: bool) -> str:
    wanted = describe(schema) + (", or null" if nullable else "")
    return f"`{where}` must be {wanted}; it is {_shown(value)}"


def describe(schema: Schema) -> str:
    """A schema in words, such as `a number from 0 to 1`."""
    if "anyOf" in schema:
        return ", or ".join(describe(part) for part in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(str(one) for one in schema["enum"])
    kind = schema.get("type")
    if kind in ("number", "integer"):
        name = "a number" if kind == "number" else "a whole number"
        if "exclusiveMinimum" in schema:
            return f"{name} above {schema['exclusiveMinimum']}" + (
                f", at most {schema['maximum']}" if "maximum" in schema else ""
            )
        return f"{name} from {schema['minimum']} to {schema['maximum']}" if "maximum" in schema else name
    if kind == "array":
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        count = f"{least} " if least and least == most else f"at least {least} " if least else ""
        return f"a list of {count}× {describe(schema['items'])}" if count else f"a list of {describe(schema['items'])}"
    if kind == "object":
        return "an object of class id: value" if "propertyNames" in schema else "an object"
    if schema.get("pattern") == LOG_ID:
        return "1 to 128 letters, digits or ._:@=+-, a letter or digit first"
    return {"boolean": "true or false", "string": "a text that is not empty" if schema.get("minLength") else "a text"}.get(
        str(kind), str(kind)
    )


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:50]}… ({type(value).__name__})"
