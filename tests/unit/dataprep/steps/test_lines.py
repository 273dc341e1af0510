"""Lines and paragraphs that an earlier document held go, as a plain reference says, however the sources are cut."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from kindling_api.v1alpha1.dataset_build import LineDuplicates
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep.build import build
from kindling_dataprep.output import ledger
from kindling_dataprep.steps.lines import piece_hashes, without_duplicates
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_storage.commit import read_manifest


@pytest.mark.parametrize(
    ("unit", "text", "left", "removed"),
    [
        ("line", "first line\nsecond line\nshort", "second line\nshort", ["first line"]),
        ("line", "  FIRST\tline \n\nfirst line", "", ["  FIRST\tline ", "first line"]),
        ("paragraph", "first line\nof two\n\nfirst  line", "first line\nof two", ["first  line"]),
        ("paragraph", "other line\n \n\n\nnext line", "other line\n \n\n\nnext line", []),
    ],
)
def test_a_piece_of_an_earlier_document_goes(unit: str, text: str, left: str, removed: list[str]) -> None:
    spec = LineDuplicates(unit=unit, min_length=8)
    first = dict.fromkeys(piece_hashes("first line", spec), 3)
    assert without_duplicates(text, 4, first, spec) == (left, removed)
    assert without_duplicates(text, 3, first, spec) == (text, [])


def reference(texts: list[str], spec: LineDuplicates) -> list[str]:
    seen: set[str] = set()
    left = []
    for text in texts:
        lines = text.split("\n")
        left.append("\n".join(line for line in lines if len(line) < spec.min_length or line.lower() not in seen))
        seen |= {line.lower() for line in lines}
    return left


def test_a_build_does_what_the_reference_does_however_it_is_cut(tmp_path: Path, new_run, monkeypatch) -> None:
    chance = random.Random(3)
    lines = [f"a line of some length, number {number}" for number in range(60)] + ["Short."]
    given = ["\n".join(chance.choices(lines, k=5)) + f"\nthe last line of document {n}" for n in range(30)] + [lines[0]]
    given.insert(0, lines[0])
    for number in range(4):
        rows = given[8 * number : 8 * number + 8]
        (tmp_path / f"{number}.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    spec = LineDuplicates(min_length=20)
    form = {"tokenizer": {"byte": {}}, "filters": [], "validation": {"tail": 0.01}}
    deduplicate = {"exact": False, "lines": spec.document()}
    digests = set()
    for store, tasks in (("one", 1), ("four", 4)):
        with monkeypatch.context() as patch:
            patch.setattr("kindling_dataprep.executors.tasks.SMALLEST_TASK", 1)
            patch.setattr("kindling_dataprep.executors.tasks.TASKS_AIMED_AT", tasks)
            patch.setattr("kindling_dataprep.stages.line_counts.INPUT_BYTES_IN_RANGE", 4000 // tasks)
            file = new_run(tmp_path / "*.jsonl", store=store, deduplicate=deduplicate, **form)
            result = build(file, Tracker(ProgressWriter(None)))
        place = open_store(result.uri)
        manifest = read_manifest(place, DatasetManifest)
        assert manifest is not None
        shards = [*manifest.train, *manifest.validation]
        tokens = np.concatenate([np.frombuffer(place.get(f"{each.path}.bin"), np.uint16) for each in shards])
        left = bytes(np.where(tokens == 256, 0, tokens).astype(np.uint8)).decode().split("\0")[:-1]
        expected = reference(given, spec)
        assert left == [text for text in expected if text]
        assert manifest.documents.removed == {"lines": 1}
        assert sum(row["lines"] for row in ledger.read_lines(place).to_pylist()) == sum(
            len(before.split("\n")) - len(after.split("\n")) * bool(after)
            for before, after in zip(given, expected, strict=True)
        )
        digests.add(tuple(place.get(f"{each.path}.bin") for each in shards))
    assert len(digests) == 1
