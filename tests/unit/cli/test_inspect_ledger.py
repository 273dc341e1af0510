"""The ledger as `inspect` lists it: on a screen of 80 columns, in a file, as JSON, and of a build that failed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from kindling_api.documents import parse
from kindling_api.errors import SpecError
from kindling_cli.commands.inspect import inspect_product
from kindling_dataprep.output.ledger import removed_table, write_table
from kindling_dataprep.records import Removal

ID = "0/a folder/with a long name/and another one in it/part 27 of them.jsonl#123456"
MEASURE = "duplicateParagraphCharacterFraction"
BEGINNING = "It was a dark and stormy night; the rain fell in torrents. " * 3


@pytest.fixture
def failed(tmp_path: Path) -> Path:
    """The folder of a build that left a ledger and no manifest."""
    removals = [
        Removal(id=ID, rule="gopherRepetition", measure=MEASURE, value=0.81234, threshold=0.2, excerpt=BEGINNING),
        Removal(id="0/b.txt#1", rule="exact", measure="digest", value=None, threshold=None, kept=ID, excerpt="b"),
    ]
    spec = {"sources": [{"uri": "a"}]}
    header = {"apiVersion": "kindling.dev/v1alpha1", "kind": "DatasetBuild", "metadata": {"name": "x"}}
    (tmp_path / "failed/removed").mkdir(parents=True)
    table = removed_table(removals, parse({**header, "spec": spec}).spec)  # type: ignore[arg-type]
    write_table(table, tmp_path / "failed/removed/part-00000.parquet")
    return tmp_path / "failed"


@pytest.fixture
def inspect(failed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What is listed of the failed build, 80 columns wide."""
    monkeypatch.setenv("COLUMNS", "80")

    def inspect(folder: Path = failed, *, rule: str | None = None, as_json: bool = False) -> str:
        options = dict(kept=False, removed=rule is None, shard=None, document=0, limit=20, verify=False)
        inspect_product(str(folder), store=str(failed.parent), rule=rule, as_json=as_json, **options)  # type: ignore[arg-type]
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return inspect


def test_a_file_gets_whole_lines(inspect: Callable[..., str]) -> None:
    header, first, second, end = inspect().splitlines()
    assert header.split() == ["document", "rule", "value", "threshold", "kept", "instead,", "or", "beginning"]
    assert first.split("  ")[0] == ID and BEGINNING.strip() in first and f"gopherRepetition: {MEASURE}" in first
    assert "0.8123" in first and "…" not in first + second and f"= {ID}" in second
    assert end == "2 of 2 removed documents."


def test_a_screen_of_80_columns_folds_names_and_keeps_numbers(
    inspect: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = inspect().splitlines()
    assert max(map(len, lines)) <= 80
    assert "value" in lines[0] and "threshold" in lines[0] and "0.8123" in lines[1] and "0.2" in lines[1]
    end = next(number for number, line in enumerate(lines) if line.startswith("0/b.txt#1"))
    width = lines[0].index("rule")
    assert "".join(line[:width].rstrip(" ") for line in lines[1:end]).replace(" ", "") == ID.replace(" ", "")
    rule = "".join(line[width : lines[0].index("value") - 1].strip() for line in lines[1:end])
    assert rule == f"gopherRepetition:{MEASURE}"


def test_json_has_every_row(inspect: Callable[..., str], failed: Path) -> None:
    rows = json.loads(inspect(as_json=True))
    assert [(row["id"], row["value"], row["kept"]) for row in rows] == [(ID, 0.81234, None), ("0/b.txt#1", None, ID)]
    assert [row["id"] for row in json.loads(inspect(failed / "removed", rule="exact", as_json=True))] == ["0/b.txt#1"]


def test_a_rule_that_removed_nothing_is_refused(inspect: Callable[..., str]) -> None:
    with pytest.raises(SpecError, match="--rule: found 'minHash'; allowed: exact, gopherRepetition"):
        inspect(rule="minHash")
