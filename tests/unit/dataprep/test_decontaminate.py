"""Which texts share an n-gram with an evaluation set, against a plain reference, and what becomes of them."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep import ledger
from kindling_dataprep.build import build
from kindling_dataprep.records import InputFile
from kindling_dataprep.steps.decontaminate import evaluation_set, evaluation_texts, leaks, ngram_hashes
from kindling_dataprep.tracker import Tracker
from kindling_storage import open_store
from kindling_storage.commit import read_manifest
from kindling_storage.progress import ProgressWriter

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


def plain_ngrams(text: str, size: int) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


@pytest.mark.parametrize("size", [3, 5, 13])
def test_shared_ngrams_are_those_of_a_plain_reference(size: int) -> None:
    chance = random.Random(size)
    words = ["one", "two", "Three", "four,", "five."]
    known = [" ".join(chance.choices(words, k=chance.randrange(30))) for _ in range(20)]
    texts = [" ".join(chance.choices(words, k=chance.randrange(60))) for _ in range(200)] + known
    reference = {ngram for text in known for ngram in plain_ngrams(text, size)}
    found = evaluation_set("set", iter(known), size)
    assert len(found.hashes) == len(reference)
    for text in texts:
        shared = sum(ngram in reference for ngram in plain_ngrams(text, size))
        assert leaks(text, [found]) == ({"set": shared} if shared else {})


def test_the_order_of_words_counts_and_their_case_and_punctuation_do_not() -> None:
    assert (ngram_hashes("a b c d", 4) == ngram_hashes("A, b: (C) d!", 4)).all()
    assert len(np.unique([ngram_hashes(text, 4)[0] for text in ("a b c d", "b a c d", "d c b a", "a a c d")])) == 4
    assert len(ngram_hashes("a b c", 4)) == 0


def parquet(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("a.jsonl", b'{"question": "one", "choices": ["two", {"x": "three"}], "label": 4}\n\n"four"\n'),
        ("a.jsonl.gz", gzip.compress(b'["one", "two", "three", "four"]\n')),
        ("a.parquet", parquet([{"a": "one", "b": ["two"], "n": 1}, {"a": "three", "b": ["four"], "n": 2}])),
    ],
    ids=["JSON lines", "gzipped", "Parquet"],
)
def test_all_strings_of_a_record_are_texts_of_an_evaluation_set(path: str, data: bytes) -> None:
    form = "parquet" if path.endswith("parquet") else "jsonl"
    file = InputFile(0, "file:///", path, len(data), "", form)
    assert list(evaluation_texts(io.BytesIO(data), file)) == ["one", "two", "three", "four"]


def run(tmp_path: Path, new_run, *evaluations: dict) -> tuple[DatasetManifest, list[dict]]:
    texts = [
        "Nothing of the kind, though it has as many words as it needs to be long enough for that.",
        f"They asked: {QUESTION.upper().replace(',', ' -')} She did.",
        "Natalia sold clips to 48 of her friends in April, but not one of them paid.",
    ]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    form = {"tokenizer": {"byte": {}}, "validation": {"fraction": 0.0}}
    result = build(
        new_run(tmp_path / "texts.jsonl", decontaminate=list(evaluations), **form), Tracker(ProgressWriter(None))
    )
    store = open_store(result.uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    assert "decontaminate" in store.get("report.html").decode()
    return manifest, ledger.read_removed(store).to_pylist()


def test_a_document_that_leaks_goes_and_the_ledger_names_the_set(tmp_path: Path, new_run) -> None:
    (tmp_path / "evaluation.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "72"}) + "\n")
    uri = str(tmp_path / "evaluation.jsonl")
    first, (removed,) = run(tmp_path, new_run, {"uri": uri})
    assert first.documents.removed == {"decontaminate": 1}
    assert (removed["id"], removed["rule"]) == ("0/texts.jsonl#2", "decontaminate")
    assert removed["measure"] == "evaluation.jsonl"
    assert (removed["value"], removed["threshold"]) == (len(plain_ngrams(QUESTION, 13)), 0)
    shorter, _ = run(tmp_path, new_run, {"uri": uri, "ngram": 8})
    assert shorter.documents.removed == {"decontaminate": 2}
    (tmp_path / "evaluation.jsonl").write_text(json.dumps({"question": QUESTION + " Why?"}) + "\n")
    assert run(tmp_path, new_run, {"uri": uri})[0].key != first.key


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("absent.jsonl", None, DataError, r"spec\.decontaminate\[0\]\.uri: found nothing at"),
        ("a.jsonl", "{torn", DataError, r"spec\.decontaminate\[0\]\.uri: found a\.jsonl, which is damaged \("),
        ("a.py", "pass", SpecError, r"spec\.decontaminate\[0\]\.uri: found a\.py, which is code; allowed: jsonl"),
        ("a.jsonl", '{"text": "too short"}', DataError, r"spec\.decontaminate\[0\]\.uri: found no text of 13 words"),
    ],
    ids=["nothing", "torn", "code", "short"],
)
def test_what_is_no_evaluation_set_is_refused(
    tmp_path: Path, new_run, name: str, content: str | None, error: type[Exception], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        run(tmp_path, new_run, {"uri": str(tmp_path / name)})
