"""What the loader refuses the API server refuses, byte for byte, and what it accepts the API server accepts."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from kindling_api.base import API_VERSION
from kindling_api.yaml_source import read_yaml
from kubenode.api_server import ApiServer

FILE = Path(__file__).parents[1] / "contract" / "mistakes.yaml"
TABLE: dict[str, Any] = read_yaml(FILE.read_text(encoding="utf-8"), FILE.name)[0].value
RESOURCES = {"build": "datasetbuilds", "pretrain": "pretrainruns", "align": "alignmentruns"}


def test_a_hundred_mistakes_are_refused_and_the_documents_without_them_accepted(server: ApiServer) -> None:
    accepted = [kind for kind, text in TABLE["documents"].items() if is_accepted(server, kind, text)]
    assert accepted == list(TABLE["documents"])
    for row in TABLE["mistakes"]:
        text = TABLE["documents"][row["document"]].replace(row["replace"], row["by"], 1)
        accepted += [row["by"]] if is_accepted(server, row["document"], text) else []
    assert accepted == list(TABLE["documents"])


def is_accepted(server: ApiServer, kind: str, text: str) -> bool:
    """Whether the server would create what a YAML text describes; unknown and repeated fields are refused, as kubectl
    asks for."""
    path = f"/apis/{API_VERSION}/namespaces/default/{RESOURCES[kind]}?dryRun=All&fieldValidation=Strict"
    headers = {"Authorization": "Bearer admin", "Content-Type": "application/yaml", "Accept": "application/json"}
    request = urllib.request.Request(f"{server.url}{path}", text.encode(), headers, method="POST")
    unverified = ssl._create_unverified_context()
    try:
        with urllib.request.urlopen(request, context=unverified, timeout=60):
            return True
    except urllib.error.HTTPError as refusal:
        assert refusal.code in (400, 404, 422), refusal.read()
        return False
