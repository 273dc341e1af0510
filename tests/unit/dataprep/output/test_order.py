"""Which documents are held out, how often they occur, in what order, and where shards end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_dataprep.output import order
from kindling_dataprep.output.order import Pieces

HASHES = np.random.default_rng(1).integers(0, 2**64, 20_000, dtype=np.uint64)


def test_about_the_fraction_asked_for_is_held_out() -> None:
    assert abs(order.split_by_digest(HASHES, 0.05).mean() - 0.05) < 0.005


def test_a_document_stays_on_its_side_when_others_come_or_go() -> None:
    every = order.split_by_digest(HASHES, 0.05)
    assert (order.split_by_digest(HASHES[::3], 0.05) == every[::3]).all()


def test_a_larger_fraction_holds_out_the_same_documents_and_more() -> None:
    assert order.split_by_digest(HASHES, 0.2)[order.split_by_digest(HASHES, 0.05)].all()


@pytest.mark.parametrize(
    ("documents", "fraction", "held_out"),
    [
        pytest.param(2, 0.001, 1, id="two documents: one is held out"),
        pytest.param(2, 0.999, 1, id="two documents: one is trained on"),
        pytest.param(1, 0.999, 0, id="one document is trained on"),
        pytest.param(0, 0.5, 0, id="no documents"),
        pytest.param(100, 0.0, 0, id="fraction 0 holds nothing out"),
    ],
)  # fmt: skip
def test_small_builds_have_both_sides(documents: int, fraction: float, held_out: int) -> None:
    assert order.split_by_digest(HASHES[:documents], fraction).sum() == held_out


@given(st.lists(st.integers(0, 50), max_size=20), st.floats(0.01, 0.99))
def test_the_tail_cuts_the_stream_where_nanogpt_cuts_it(lengths: list[int], tail: float) -> None:
    stream = [(document, place) for document, length in enumerate(lengths) for place in range(length)]
    cut = int(len(stream) * (1 - tail))
    head, rest = order.split_by_tail(np.array(lengths, dtype=np.int64), tail)
    assert _tokens(head) == stream[:cut]
    assert _tokens(rest) == stream[cut:]


@pytest.mark.parametrize(("weight", "least", "most"), [(1.0, 1, 1), (2.5, 2, 3), (0.25, 0, 1), (3.0, 3, 3)])
def test_a_weight_is_the_mean_number_of_copies(weight: float, least: int, most: int) -> None:
    copies = order.copies(HASHES, np.full(len(HASHES), weight))
    assert (copies.min(), copies.max()) == (least, most)
    assert abs(copies.mean() - weight) < 0.01


def test_the_order_of_two_documents_does_not_depend_on_the_others() -> None:
    documents = np.arange(1000)
    ones = np.ones(1000, dtype=np.int64)
    every = order.shuffled(documents, ones, HASHES[:1000])
    some = order.shuffled(documents[::7], ones[::7], HASHES[:1000:7])
    assert [document for document in every.tolist() if document % 7 == 0] == some.tolist()
    assert every.tolist() != sorted(every.tolist())


def test_copies_of_a_document_are_spread() -> None:
    places = np.flatnonzero(order.shuffled(np.arange(1000), np.full(1000, 2), HASHES[:1000]) == 5)
    assert len(places) == 2
    assert places[1] - places[0] > 1


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 60))
def test_a_shard_ends_with_the_document_that_fills_it(lengths: list[int], tokens_per_shard: int) -> None:
    pieces = Pieces.whole(np.arange(len(lengths)), np.array(lengths))
    shards = order.cut_into_shards(pieces, tokens_per_shard)
    assert np.concatenate([shard.document for shard in shards]).tolist() == list(range(len(lengths)))
    for shard in shards[:-1]:
        assert shard.length.sum() >= tokens_per_shard > shard.length[:-1].sum()


def _tokens(pieces: Pieces) -> list[tuple[int, int]]:
    columns = (pieces.document.tolist(), pieces.start.tolist(), pieces.length.tolist())
    return [(document, start + i) for document, start, length in zip(*columns, strict=True) for i in range(length)]
