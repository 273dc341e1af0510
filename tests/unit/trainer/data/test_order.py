"""The order of windows: a permutation in each epoch, the same on every layout, known from the step alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kindling_api.errors import DataError
from kindling_api.v1alpha1.training import BatchPlan
from kindling_api.v1alpha1.windows import WindowRange, merged
from kindling_trainer.data.order import WindowOrder, check_enough, permute
from kindling_trainer.data.shards import TokenStream, open_shard, read_index
from kindling_trainer.data.windows import TrainingWindows, ValidationWindows
from kindling_trainer.loss import IGNORED


@given(size=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_permute_is_a_permutation(size: int, key: int) -> None:
    images = permute(np.arange(size), size, key)
    assert np.array_equal(np.sort(images), np.arange(size))


@given(tokens=st.integers(17, 5000), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 5))
def test_each_epoch_reads_each_of_its_windows_once_and_stays_within_the_stream(
    tokens: int, seed: int, epoch: int
) -> None:
    order = WindowOrder(tokens, 16, seed)
    starts = order.starts(epoch * order.epoch_windows, order.epoch_windows)
    offsets = set((starts % 16).tolist())
    assert len(offsets) == 1, "one offset for the whole epoch"
    assert np.array_equal(np.sort(starts), starts.min() + 16 * np.arange(order.epoch_windows))
    assert starts.min() >= 0 and starts.max() + 17 <= tokens


def test_windows_do_not_depend_on_how_many_are_asked_for_at_once() -> None:
    order = WindowOrder(1000, 16, 7)
    assert np.array_equal(order.starts(0, 200), np.concatenate([order.starts(n, 1) for n in range(200)]))


def test_seed_and_epoch_change_the_order() -> None:
    order, windows = WindowOrder(10_000, 16, 1), 600
    first = order.starts(0, windows)
    assert not np.array_equal(first, order.starts(order.epoch_windows, windows))
    assert not np.array_equal(first, WindowOrder(10_000, 16, 2).starts(0, windows))


SKIPS = [[], [(0, 3)], [(5, 1)], [(5, 2), (8, 4)], [(150, 30)], [(0, 1), (2, 1), (61, 200)]]


@pytest.mark.parametrize("skips", SKIPS, ids=str)
def test_windows_that_are_left_out_are_read_by_none_and_the_others_in_their_order(skips: list[tuple[int, int]]) -> None:
    ranges = merged(WindowRange(first=first, count=count) for first, count in skips)
    order = WindowOrder(1000, 16, 7, ranges)
    left_out = {number for first, count in skips for number in range(first, first + count)}
    expected = [number for number in range(600) if number not in left_out][:200]
    assert order.numbers(0, 200).tolist() == expected
    assert order.starts(0, 200).tolist() == WindowOrder(1000, 16, 7).starts(0, 600)[expected].tolist()
    assert np.array_equal(order.starts(0, 200), np.concatenate([order.starts(n, 1) for n in range(200)]))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9))))
def test_what_is_left_out_has_one_form(skips: list[tuple[int, int]]) -> None:
    given = [WindowRange(first=first, count=count) for first, count in skips]
    found = merged(given)
    assert {n for one in found for n in range(one.first, one.first + one.count)} == {
        n for one in given for n in range(one.first, one.first + one.count)
    }
    assert merged(reversed(given)) == found
    assert all(one.first + one.count < other.first for one, other in itertools.pairwise(found))


@pytest.mark.parametrize(("ranks", "micro"), [(1, 8), (1, 2), (2, 4), (4, 1)])
def test_every_layout_reads_the_same_windows_in_a_step(ranks: int, micro: int) -> None:
    stream = TokenStream([np.arange(700, dtype=np.uint16), np.arange(700, 1000, dtype=np.uint16)])
    order = WindowOrder(len(stream), 16, 3)
    seen = []
    for rank in range(ranks):
        plan = BatchPlan(context=16, sequences=8, micro_batch=micro, accumulation=8 // ranks // micro)
        for tokens, targets in TrainingWindows(stream, order, plan, rank).micro_batches(5):
            assert torch.equal(tokens + 1, targets), "a target is the next token, across shards too"
            seen += tokens[:, 0].tolist()
    assert seen == order.starts(5 * 8, 8).tolist()


def test_of_more_processes_than_windows_some_have_one_that_does_not_count() -> None:
    stream = TokenStream([np.arange(1000, dtype=np.uint16)])
    order, plan = WindowOrder(len(stream), 16, 3), BatchPlan(context=16, sequences=2, micro_batch=1, accumulation=1)
    each = [next(TrainingWindows(stream, order, plan, rank).micro_batches(5)) for rank in range(4)]
    assert [int(tokens[0, 0]) for tokens, _ in each[:2]] == order.starts(5 * 2, 2).tolist()
    assert [int((targets != IGNORED).sum()) for _, targets in each] == [16, 16, 0, 0]
    assert all(int(tokens.min()) >= 0 for tokens, _ in each), "what does not count is no token"


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("tokens", [1, 2, 17, 100, 161])
def test_an_evaluation_of_the_whole_part_has_each_token_but_the_first_as_a_target_once(tokens: int, ranks: int) -> None:
    stream = TokenStream([np.arange(tokens, dtype=np.uint16)])
    batches = [list(ValidationWindows(stream, 16, 2, rank, ranks).all(10**9)) for rank in range(ranks)]
    assert len({len(each) for each in batches}) == 1, "all processes compute as many batches"
    targets = torch.cat([targets.flatten() for each in batches for _, targets in each] or [torch.zeros(0)])
    assert sorted(targets[targets != IGNORED].tolist()) == list(range(1, tokens))


def test_a_part_smaller_than_a_window_is_refused_with_numbers() -> None:
    with pytest.raises(DataError) as caught:
        check_enough(16, 16)
    assert str(caught.value) == (
        "spec.dataset: found 16 training tokens; allowed: at least one window of spec.model.context + 1 = 17 tokens. "
        "To fix it: add sources, remove fewer documents, or use a smaller spec.model.context."
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"PK" + content[2:], "not a Megatron index file"),
        (lambda content: content[:-3], "cut short or too long"),
        (lambda content: content[:9] + b"\x07" + content[10:], "version 7"),
    ],
    ids=["other-file", "torn", "other-version"],
)
def test_a_damaged_index_is_refused(tmp_path: Path, damage: object, message: str, dataset: object) -> None:
    dataset()  # type: ignore[operator]
    path = tmp_path / "dataset" / "train-00000.idx"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        read_index(path)


def test_a_shard_that_lost_tokens_is_refused(tmp_path: Path, dataset: object) -> None:
    dataset()  # type: ignore[operator]
    index, tokens = (tmp_path / "dataset" / f"train-00000.{suffix}" for suffix in ("idx", "bin"))
    assert len(open_shard(index, tokens)) == 2500
    tokens.write_bytes(tokens.read_bytes()[:-2])
    with pytest.raises(DataError, match="4998 bytes, but its index counts 2500 tokens of 2 bytes"):
        open_shard(index, tokens)
