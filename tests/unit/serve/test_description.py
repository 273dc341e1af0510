"""Whatever fits the server's own description, or does not, is answered, and never by a fault of the server."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def described(brief_server: Any) -> Any:
    return schemathesis.openapi.from_url(f"{brief_server.url}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/{name}"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("GET", "/health"),
    ],
)
def test_no_request_is_answered_by_a_fault_of_the_server(
    described: Any, method: str, path: str, mode: GenerationMode
) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance]

    @given(case=described[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        case.call_and_validate(checks=checks, timeout=60)

    try:
        ask()
    except Unsatisfiable:
        assert mode.is_negative and method == "GET"  # there is nothing that could be wrong


def test_the_description_names_every_field_that_is_read(brief_server: Any) -> None:
    with urllib.request.urlopen(f"{brief_server.url}/openapi.json") as response:
        document = json.loads(response.read())
    chat = document["components"]["schemas"]["ChatRequest"]
    assert {"messages", "temperature", "min_p", "stream_options"} <= set(chat["properties"])
    assert chat["properties"]["model"] == {"enum": ["tiny", None]}
    assert set(document["paths"]) >= {"/v1/chat/completions", "/v1/completions", "/v1/models"}
