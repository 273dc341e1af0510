"""What a tokenizer learns from: everything while it is little, and a sample as the result is mixed once it is much."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kindling_dataprep.build import build
from kindling_dataprep.stages.sample import counts
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_runtime.splitmix import mix
from kindling_storage import open_store

CONTENT = mix(np.arange(20_000, dtype=np.uint64))
SIZES = np.full(20_000, 1000)
WEIGHTS = np.repeat([1.0, 3.0], 10_000)


def test_little_text_is_learned_from_as_often_as_it_is_in_the_result() -> None:
    taken = counts(CONTENT, WEIGHTS, SIZES, 40_000_000)
    assert (taken == WEIGHTS).all()


def test_a_sample_has_the_size_asked_for_and_the_shares_of_the_result() -> None:
    taken = counts(CONTENT, WEIGHTS, SIZES, 4_000_000)
    assert taken.sum() == pytest.approx(4000, rel=0.05)
    assert taken[10_000:].sum() / taken[:10_000].sum() == pytest.approx(3, rel=0.1)


def test_removed_documents_are_in_no_sample_and_a_smallest_one_has_a_document() -> None:
    sizes = np.where(np.arange(20_000) % 2, 1000, 0)
    taken = counts(CONTENT, WEIGHTS, sizes, 1)
    assert taken.sum() == 1 and sizes[taken == 1] == 1000
    assert not counts(CONTENT, WEIGHTS, np.zeros_like(sizes), 1).any()


def test_a_build_learns_from_no_more_than_the_sample(tmp_path: Path, new_run) -> None:
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "number {n} of many {n * n}"}}\n' for n in range(400)))
    sizes = []
    for size in ("64Mi", "1Ki"):
        asked = {"train": {"vocabSize": 2000, "sample": size}}
        run = new_run(tmp_path / "a.jsonl", store=size, tokenizer=asked, filters=[], deduplicate={"exact": False})
        result = build(run, Tracker(ProgressWriter(None)))
        assert result.documents.kept == 400
        sizes.append(len(open_store(result.uri).get("tokenizer.json")))
    assert sizes[1] < sizes[0] / 2
