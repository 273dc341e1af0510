"""The endpoint's OpenAPI description, from the models that read its requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic.json_schema import models_json_schema

from kindling_serve.protocol import ChatRequest, CompletionRequest

Document = dict[str, Any]

_REFUSALS = {
    "400": "The request is wrong; the message says where.",
    "401": "No API key, or a wrong one.",
    "404": "There is no such model.",
    "408": "The request took too long to arrive.",
    "413": "The request is too large.",
    "415": "The request is not JSON.",
    "429": "The line is full; try again later.",
    "500": "The server failed.",
}

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def describe(names: Sequence[str]) -> Document:
    """The description of the server of some models; it has the name of the first."""
    kinds = [(ChatRequest, "validation"), (CompletionRequest, "validation")]
    _, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    for kind, _ in kinds:
        schemas["$defs"][kind.__name__]["properties"]["model"] = {"enum": [*names, None]}
    bearer = {"type": "http", "scheme": "bearer"}
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Kindling: {names[0]}", "version": "1"},
        "security": [{}, {"key": []}],
        "paths": {
            "/v1/models": {"get": _operation("The models that are served.")},
            "/v1/models/{name}": {"get": {**_operation("What there is of a name."), "parameters": [_NAME]}},
            "/v1/chat/completions": {"post": _operation("The answer to a dialogue.", "ChatRequest")},
            "/v1/completions": {"post": _operation("The continuation of texts.", "CompletionRequest")},
            "/health": {"get": {"summary": "Whether it works.", "responses": {"200": {"description": "It does."}}}},
        },
        "components": {"schemas": {**schemas["$defs"], "Error": _ERROR}, "securitySchemes": {"key": bearer}},
    }


_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def _operation(summary: str, request: str | None = None) -> Document:
    wrong = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: Document = {code: {"description": text, "content": wrong} for code, text in _REFUSALS.items()}
    forms: Document = {"application/json": {"schema": {"type": "object"}}}
    if request is not None:
        forms |= {"text/event-stream": {"schema": {"type": "string"}}}
    responses["200"] = {"description": "What was asked for; with `stream`, piece by piece.", "content": forms}
    if request is None:
        return {"summary": summary, "responses": responses}
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{request}"}}}}
    return {"summary": summary, "requestBody": body, "responses": responses}
