"""A hundred mistakes, as people make them in files: what each is told, with exit code 2, file, line and remedy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kindling_api.documents import load
from kindling_api.errors import EXIT_USER, SpecError
from kindling_api.yaml_source import read_yaml

FILE = Path(__file__).parent / "mistakes.yaml"
TABLE: dict[str, Any] = read_yaml(FILE.read_text(encoding="utf-8"), FILE.name)[0].value
SENTENCE = re.compile(r"\d+: (?:[\w.\[\]]+: )?found .+; allowed: .+\. To fix it: .+[.?]", re.DOTALL)
"""Line, field (where the YAML can be read), what was found, what is allowed, what to do."""


def mistaken(row: dict[str, Any]) -> str:
    """The document with the mistake in it."""
    text: str = TABLE["documents"][row["document"]]
    assert row["replace"] in text
    return text.replace(row["replace"], row["by"], 1)


@pytest.mark.parametrize("kind", TABLE["documents"])
def test_without_its_mistake_a_document_is_accepted(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(TABLE["documents"][kind], encoding="utf-8")
    assert len(load([file])) == 1


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["by"] or f"no {row['replace']}") for row in TABLE["mistakes"]]
)
def test_a_mistake_is_told_with_line_field_and_remedy(row: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(mistaken(row), encoding="utf-8")
    with pytest.raises(SpecError) as refusal:
        load([file])
    assert str(refusal.value).replace(f"{file}:", "").splitlines() == row["says"]
    assert all(SENTENCE.fullmatch(sentence) for sentence in row["says"])
    assert refusal.value.exit_code == EXIT_USER


def test_there_are_a_hundred_of_them_and_each_is_another() -> None:
    assert len({mistaken(row) for row in TABLE["mistakes"]}) >= 100
