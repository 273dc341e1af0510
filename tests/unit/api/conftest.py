"""Short ways to make documents."""

from collections.abc import Callable
from typing import Any

import pytest

from kindling_api.documents import Document, parse

API_VERSION = "kindling.dev/v1alpha1"

SHORTEST: dict[str, dict[str, Any]] = {
    "DatasetBuild": {"sources": [{"uri": "builtin:python-stdlib"}]},
    "PretrainRun": {"dataset": {"name": "web"}, "model": {"preset": "llama-tiny"}, "training": {"steps": 10}},
    "AlignmentRun": {"base": {"name": "tiny"}, "method": {"sft": {}}, "data": [{"uri": "chat.jsonl"}]},
}


@pytest.fixture
def make() -> Callable[..., Document]:
    """`make(kind, name, **spec)`: a document with the shortest spec of its kind, and `spec` over it."""

    def make(kind: str, name: str = "x", namespace: str = "default", **spec: Any) -> Document:
        metadata = {"name": name, "namespace": namespace}
        return parse({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": SHORTEST[kind] | spec})

    return make
