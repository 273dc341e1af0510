"""What the ledger says of duplicates, and how the pairs to verify are cut into groups."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from kindling_dataprep.executors.local import LocalExecutor
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.stages import verify
from kindling_dataprep.stages.clean import CleanTask, clean
from kindling_dataprep.stages.corpus import corpus_of
from kindling_dataprep.stages.deduplicate import removals_of
from kindling_dataprep.steps.clusters import Duplicates
from kindling_dataprep.steps.read import list_inputs
from kindling_dataprep.steps.shingles import jaccards, shingles


def duplicates(*rows: tuple[int, int, float]) -> Duplicates:
    return Duplicates(*(np.array(column) for column in zip(*rows, strict=True)))


def test_a_copy_of_a_near_copy_names_the_document_that_stays() -> None:
    removals = removals_of(duplicates((2, 1, 1.0), (4, 3, 1.0)), duplicates((1, 0, 0.9)))
    assert [tuple(row.values()) for row in removals.to_pylist()] == [
        (1, 0, "minHash", 0.9),
        (2, 0, "exact", None),
        (4, 3, "exact", None),
    ]


def test_groups_hold_so_many_characters_and_keep_together_what_hangs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, characters = np.array([[0, 5], [1, 2], [3, 4], [4, 5]]), np.full(6, 10)
    assert verify.groups_of(pairs, characters).tolist() == [0, 0, 0, 0]
    monkeypatch.setattr(verify, "GROUP_CHARACTERS", 61)
    assert verify.groups_of(pairs, characters).tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("limit", [1, 2_000, 1 << 20], ids=["a pair a group", "some pairs a group", "one group"])
def test_similarities_over_parts_and_groups_are_those_of_the_texts(
    limit: int, tmp_path: Path, new_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(f"w{i % (number + 7)}" for i in range(60 + number)) for number in range(12)]
    (tmp_path / "in").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / f"in/{number:02d}.txt").write_text(text)
    run = new_run(tmp_path / "in", filters=[])
    job = Job(run.spec, run.output, "datasets/test")
    spans = list_inputs(run.spec.sources, open_store=job.open_input)
    parts = [clean(CleanTask(job, index, (span,)))[1] for index, span in enumerate(spans)]
    monkeypatch.setattr(verify, "GROUP_CHARACTERS", limit)
    pairs = np.array(list(combinations(range(len(texts)), 2)))
    found = verify.similarities_of(corpus_of(job, parts), pairs, np.array(list(map(len, texts))), 5, LocalExecutor())
    assert found.tolist() == jaccards(shingles(texts, 5), pairs).tolist()
