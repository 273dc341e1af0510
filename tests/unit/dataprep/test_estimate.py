"""What is estimated of a build, beside what the build makes."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_dataprep.build import build
from kindling_dataprep.estimate import SAMPLE_BYTES, SURE_BYTES, BuildEstimate, estimate, sample, spread
from kindling_dataprep.first_look import first_look
from kindling_dataprep.records import InputFile
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_storage.commit import read_manifest


def estimated(file: DatasetBuildFile) -> BuildEstimate:
    return estimate(file.spec, first_look(file.spec, open_store).files, open_store)


def built(file: DatasetBuildFile) -> DatasetManifest:
    manifest = read_manifest(open_store(build(file, Tracker(ProgressWriter(None))).uri), DatasetManifest)
    assert manifest is not None
    return manifest


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"filters": [{"formatting": {}}, {"gopherRepetition": {}}], "tokenizer": {"byte": {}}},
        {"deduplicate": {"exact": False, "minHash": None}, "tokenizer": {"char": {}}, "filters": []},
        {"validation": {"tail": 0.2}},
    ],
    ids=["all defaults", "rules", "as it is", "a tail"],
)
def test_where_all_is_looked_at_the_estimate_is_what_is_built(corpus: Path, new_run, fields: dict[str, Any]) -> None:
    (corpus / "zz_binary.py").unlink()
    file = new_run(corpus, badRecords={"maxFraction": 0.5}, **fields)
    found, made = estimated(file), built(file)
    assert found.sampled == 1
    assert (found.documents, found.kept) == (made.documents.read, made.documents.kept)
    assert (found.tokens, found.vocab_size) == (made.train_tokens, made.tokenizer.vocab_size)


def test_a_source_with_more_weight_counts_so_often(corpus: Path, new_run) -> None:
    once, twice = (
        estimated(new_run({"uri": f"{corpus}/*.jsonl", "weight": weight}, tokenizer={"byte": {}}))
        for weight in (1.0, 2.0)
    )
    assert twice.tokens == 2 * once.tokens


TEXTS = [
    f"The record of number {number} says that {number * 7} is it, and {number * 31} too. " * 6
    for number in range(30_000)
]


def put(folder: Path, form: str) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    match form:
        case "jsonl":
            (folder / "all.jsonl").write_text(lines)
        case "jsonl.gz":
            (folder / "all.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 1))
        case "parquet":
            pq.write_table(pa.table({"text": TEXTS}), folder / "all.parquet", row_group_size=1000)
        case "txt":
            for number in range(0, len(TEXTS), 100):
                (folder / f"{number}.txt").write_text("\n".join(TEXTS[number : number + 100]))
    return folder


@pytest.mark.parametrize("form", ["jsonl", "parquet", "txt"])
def test_of_large_sources_a_sample_tells_within_a_tenth(
    form: str, tmp_path: Path, new_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling_dataprep.estimate.SAMPLE_BYTES", 1 << 20)
    plain = {"tokenizer": {"byte": {}}, "filters": [], "deduplicate": {"exact": False, "minHash": None}}
    found = estimated(new_run(put(tmp_path / "in", form), validation={"fraction": 0.0}, **plain))
    bytes_of_all = sum(len(text) + 1 for text in TEXTS)
    assert found.sampled < 0.6
    assert found.tokens == pytest.approx(bytes_of_all, rel=0.1)


def test_a_sample_is_pieces_of_all_files_and_no_more_than_asked_for() -> None:
    files = [InputFile(0, "file:///x", f"{number}.txt", 3 << 20, "", "text") for number in range(40)]
    pieces = sample(files, 40 * (3 << 20), open_store)
    assert sum(piece.stored for piece in pieces) <= SAMPLE_BYTES
    assert len({piece.span.file.path for piece in pieces}) == 40
    small = [InputFile(0, "file:///x", "a.txt", 10, "", "text"), InputFile(0, "file:///x", "b.txt", 0, "", "text")]
    assert [(piece.span.file.path, piece.stored) for piece in sample(small, 10, open_store)] == [("a.txt", 10)]


@pytest.mark.parametrize("count", [0, 1, 7, 128])
def test_pieces_are_looked_at_spread_over_all_of_them(count: int) -> None:
    order = spread(count)
    assert sorted(order) == list(range(count))
    for length in (1 << power for power in range(count.bit_length())):
        parts = [number * length // count for number in order[:length]]
        assert max(parts.count(part) for part in parts) <= 2


def test_where_time_is_short_some_pieces_are_enough(tmp_path: Path, new_run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kindling_dataprep.estimate.SAMPLE_SECONDS", 0.0)
    plain = {"tokenizer": {"byte": {}}, "filters": [], "deduplicate": {"exact": False, "minHash": None}}
    found = estimated(new_run(put(tmp_path / "in", "jsonl"), validation={"fraction": 0.0}, **plain))
    size = (tmp_path / "in/all.jsonl").stat().st_size
    assert SURE_BYTES <= found.sampled * size < 2 * SURE_BYTES
    assert found.documents == pytest.approx(len(TEXTS), rel=0.05)
    assert found.tokens == pytest.approx(sum(len(text) + 1 for text in TEXTS), rel=0.05)


def test_a_first_look_loads_nothing_that_cleans() -> None:
    heavy = ("scipy", "pandas", "tokenizers", "ftfy", "torch", "ray")
    code = f"import sys, kindling_dataprep.first_look; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
