"""The signatures that a dataset keeps find the documents that are most like a text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import datasketch
import pytest
from typer.testing import CliRunner

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.dataset_build import MinHash
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_cli.main import app
from kindling_dataprep.build import build
from kindling_dataprep.similar import similar, sketch, sketches
from kindling_dataprep.steps.minhash import signatures
from kindling_dataprep.steps.shingles import shingle_set
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest, verify

WORDS = ["river", "bridge", "council", "winter", "mill", "garden", "letter", "market", "harbour", "window", "stone"]
TEXTS = [" ".join(random.Random(n).choices(WORDS, k=60)) for n in range(40)]
LIKE = " ".join(TEXTS[7].split()[:50]) + " and then ten quite other words follow at the very end"
FORM = {"tokenizer": {"byte": {}}, "filters": [], "validation": {"fraction": 0.1}}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    texts = [*TEXTS, TEXTS[3], TEXTS[5] + " more"]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tmp_path / "records.jsonl"


def built(file) -> tuple[ObjectStore, DatasetManifest]:
    store = open_store(build(file, Tracker(ProgressWriter(None))).uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    return store, manifest


def test_the_most_similar_come_first_with_datasketchs_estimate(records: Path, new_run) -> None:
    store, manifest = built(new_run(records, deduplicate={"minHash": {"index": True}}, **FORM))
    assert list(verify(store, manifest)) == []
    first, *others = similar(store, manifest, LIKE, 5)
    assert (first.id, first.source) == ("0/records.jsonl#8", manifest.spec["sources"][0]["uri"])
    one, other = shingle_set(LIKE, 5), shingle_set(TEXTS[7], 5)
    assert first.jaccard == pytest.approx(len(one & other) / len(one | other), abs=0.12)
    theirs = dict(sketches(store))[first.id].jaccard(sketch(signatures([LIKE], MinHash())[0]))
    assert first.jaccard == theirs
    assert first.excerpt.startswith(TEXTS[7][:50])
    assert all(each.jaccard <= first.jaccard for each in others) and len(others) <= 4


def test_documents_that_were_removed_are_not_found_and_those_that_stay_are_all_there(records: Path, new_run) -> None:
    store, manifest = built(new_run(records, deduplicate={"minHash": {"index": True}}, **FORM))
    ids = [id for id, _ in sketches(store)]
    assert len(ids) == manifest.documents.kept == 40
    assert [each.jaccard for each in similar(store, manifest, TEXTS[3], 1)] == [1.0]
    assert similar(store, manifest, "nothing of this is there at all", 3) == []


def test_the_signatures_fill_an_index_of_datasketchs(records: Path, new_run) -> None:
    store, _ = built(new_run(records, deduplicate={"minHash": {"index": True}}, **FORM))
    index = datasketch.MinHashLSH(num_perm=120, params=(20, 6))
    for id, signature in sketches(store):
        index.insert(id, signature)
    assert index.query(sketch(signatures([TEXTS[9]], MinHash())[0])) == ["0/records.jsonl#10"]


def test_a_dataset_without_signatures_says_which_field_keeps_them(records: Path, new_run) -> None:
    store, manifest = built(new_run(records, **FORM))
    with pytest.raises(SpecError, match=r"spec\.deduplicate\.minHash\.index: found .* set it to true"):
        similar(store, manifest, LIKE, 1)


def test_the_command_shows_documents_as_a_table_and_as_json(records: Path, new_run, tmp_path: Path) -> None:
    built(new_run(records, deduplicate={"minHash": {"index": True}}, **FORM))
    (tmp_path / "page.txt").write_text(LIKE)
    place = ["similar", "test", "--store", str(tmp_path / "store")]
    done = CliRunner().invoke(app, [*place, "--file", str(tmp_path / "page.txt")], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "0/records.jsonl#8" in done.output
    found = json.loads(CliRunner().invoke(app, [*place, "--text", LIKE, "--limit", "1", "--json"]).output)
    assert [each["id"] for each in found] == ["0/records.jsonl#8"]
    assert 0.5 < found[0]["jaccard"] < 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "--text: found neither; allowed: --text or --file"),
        (["--text", "a", "--file", "b"], "--text: found --text and --file"),
        (["--text", "  "], "--text: found an empty text"),
        (["--file", "/nowhere/page.txt"], "--file: found .*No such file"),
    ],
)
def test_what_cannot_be_asked_is_refused(given: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["similar", "test", *given])
    with pytest.raises(SpecError, match=message):
        raise done.exception or AssertionError(done.output)
