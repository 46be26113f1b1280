"""The contract as OpenAPI 3.1, from the same tables that check requests."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from kit.gateway import contract
from kit.gateway.causes import CAUSE_HEADER, CAUSES

_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["logId", "errorCode", "errorMsg"],
    "properties": {"logId": {"type": "string"}, "errorCode": {"type": "integer"}, "errorMsg": {"type": "string"}},
}
_PAGE: dict[str, Any] = {
    "type": "object",
    "required": ["prunedResult", "markdown"],
    "properties": {
        "prunedResult": {"type": "object"},
        "markdown": {
            "type": "object",
            "required": ["text"],
            "properties": {"text": {"type": "string"}, "images": {"type": "object", "additionalProperties": {"type": "string"}}},
        },
        "outputImages": {"type": "object", "additionalProperties": {"type": "string"}},
        "inputImage": {"type": "string"},
        "exports": {"type": "object"},
    },
}


@lru_cache(maxsize=1)
def document() -> bytes:
    """The whole description as JSON."""
    causes: dict[str, list[str]] = {}
    for cause in CAUSES.values():
        causes.setdefault(str(cause.status), []).append(f"{cause.name}: {cause.meaning}")
    errors = {
        status: {
            "description": "; ".join(texts),
            "headers": {CAUSE_HEADER: {"schema": {"type": "string"}}},
            "content": {"application/json": {"schema": _ERROR}},
        }
        for status, texts in causes.items()
        if status not in ("404", "405")
    }
    paths = {
        "/layout-parsing": _post(
            "infer", "Parse a PDF or a picture", contract.LAYOUT_PARSING, ["layoutParsingResults", "dataInfo"], errors
        ),
        "/restructure-pages": _post(
            "restructurePages", "Put parsed pages together", contract.RESTRUCTURE_PAGES, ["layoutParsingResults"], errors
        ),
        "/health": _get("checkHealth", "The gateway lives", errors=("500",)),
        "/ready": _get("checkReady", "Replicas and VLM serve, and a page was read lately", errors=("500", "503")),
        "/metrics": _get("metrics", "Figures for Prometheus", "text/plain"),
        "/openapi.json": _get("openapi", "This description"),
    }
    return json.dumps(
        {
            "openapi": "3.1.0",
            "info": {"title": "PaddleOCR-VL gateway", "version": "1"},
            "paths": paths,
            "components": {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
            "security": [{"key": []}, {}],
        },
        ensure_ascii=False,
    ).encode()


def _post(
    name: str, summary: str, fields: tuple[contract.Field, ...], result: list[str], errors: dict[str, Any]
) -> dict[str, Any]:
    properties: dict[str, Any] = {"layoutParsingResults": {"type": "array", "items": _PAGE}, "dataInfo": {"type": "object"}}
    reply = {
        "type": "object",
        "required": ["logId", "result", "errorCode", "errorMsg"],
        "properties": {
            "logId": {"type": "string"},
            "result": {"type": "object", "required": result, "properties": {name: properties[name] for name in result}},
            "errorCode": {"const": 0},
            "errorMsg": {"const": "Success"},
        },
    }
    body = {"required": True, "content": {"application/json": {"schema": contract.schema_of(fields)}}}
    good = {"description": "parsed", "content": {"application/json": {"schema": reply}}}
    return {"post": {"operationId": name, "summary": summary, "requestBody": body, "responses": {"200": good, **errors}}}


def _get(name: str, summary: str, kind: str = "application/json", errors: tuple[str, ...] = ("401", "500")) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "good", "content": {kind: {}}}}
    responses |= {status: {"description": "not good", "content": {"application/json": {"schema": _ERROR}}} for status in errors}
    return {"get": {"operationId": name, "summary": summary, "responses": responses}}
