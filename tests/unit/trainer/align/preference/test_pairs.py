"""Neither how many pairs are computed at once nor the number of processes changes what is learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kindling_api.errors import IntegrityError
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.training import BatchPlan, TrainingSpec
from kindling_storage import open_store
from kindling_trainer.align.data.tokenize import Pairs, read_pairs
from kindling_trainer.align.preference.losses import PairValues, bradley_terry, dpo
from kindling_trainer.align.preference.pairs import PairBatch, PairWindows
from kindling_trainer.align.preference.reference import ReferenceCache
from kindling_trainer.loss import IGNORED
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.scored import build_scored, is_scored
from kindling_trainer.parallel.apply import ParallelModel, parallelize
from kindling_trainer.parallel.mesh import Ranks

SHAPE = ModelShape.model_validate(
    {"architecture": "llama", "layers": 2, "heads": 2, "kv_heads": 1, "width": 16, "ffn_width": 24, "context": 40}
)
ONE = Ranks(0, Layout(), torch.device("cpu"), mesh=None, control=None, background=None)


@pytest.fixture
def pairs(sources: Any, template: Any) -> Pairs:
    records = [
        {"prompt": "?" * (number % 5 + 1), "chosen": "y" * (number % 7 + 1), "rejected": "n" * (number % 3 + 1)}
        for number in range(20)
    ]
    return read_pairs(sources(records), template(), context=SHAPE.context)[0]


def windows(pairs: Pairs, ranks: Ranks = ONE, *, unread: int, micro_batch: int = 4) -> PairWindows:
    places = [[first, first + 1] for first in range(0, len(pairs), 2)]
    plan = BatchPlan(context=SHAPE.context, sequences=4, micro_batch=micro_batch, accumulation=1)
    return PairWindows(pairs, places, plan, ranks, unread)


def parallel(make: Callable[..., Any]) -> ParallelModel:
    model = make(SHAPE, 260)
    initialize(model, 7)
    if is_scored(model):
        torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    return parallelize(model, TrainingSpec(steps=1, precision="fp32"), ONE, compiled=False)


def language_loss(model: ParallelModel, batch: PairBatch) -> torch.Tensor:
    each = model.log_probabilities(batch.tokens, batch.targets).sum(1)[: len(batch.ends)]
    policy = PairValues(*each.view(-1, 2).unbind(1))
    nothing = PairValues(torch.zeros_like(policy.chosen), torch.zeros_like(policy.chosen))
    return dpo(policy, nothing, beta=0.1).sum()


def judging_loss(model: ParallelModel, batch: PairBatch) -> torch.Tensor:
    scores = model.scores(batch.tokens)[: len(batch.ends)].gather(1, batch.ends[:, None])
    return bradley_terry(PairValues(*scores.view(-1, 2).unbind(1))).sum()


@pytest.mark.parametrize(
    ("make", "loss", "unread"),
    [(build_model, language_loss, 1), (build_scored, judging_loss, 0)],
    ids=["dpo", "reward"],
)
def test_how_many_are_computed_at_once_changes_neither_loss_nor_gradient(
    pairs: Pairs, make: Any, loss: Any, unread: int
) -> None:
    model, found, counts = parallel(make), [], []
    for micro_batch in (1, 4, 64):
        batches = windows(pairs, unread=unread, micro_batch=micro_batch).batches(range(5))
        total = torch.stack([loss(model, batch) for batch in batches]).sum()
        model.model.zero_grad()
        total.backward()
        found.append((total.detach(), torch.cat([part.grad.flatten() for part in model.model.parameters()])))
        counts.append(len(batches))
    assert counts == [10, 5, 1]
    for total, gradient in found[1:]:
        torch.testing.assert_close(total, found[0][0], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(gradient, found[0][1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "loss", "unread"),
    [(build_model, language_loss, 1), (build_scored, judging_loss, 0)],
    ids=["dpo", "reward"],
)
def test_what_is_chosen_is_learned(pairs: Pairs, make: Any, loss: Any, unread: int) -> None:
    model, (batch,) = parallel(make), windows(pairs, unread=unread, micro_batch=64).batches([0, 1])
    optimizer = torch.optim.Adam(model.model.parameters(), lr=1e-2)
    before = loss(model, batch).item()
    for _ in range(20):
        optimizer.zero_grad()
        loss(model, batch).backward()
        optimizer.step()
    assert loss(model, batch).item() < before / 3


def test_a_judge_reads_the_whole_answer_and_a_language_model_all_but_its_end(pairs: Pairs) -> None:
    for unread in (0, 1):
        (batch,) = windows(pairs, unread=unread).batches([1])
        row = 2 * batch.pairs.tolist().index(3)
        for place, one in ((row, pairs.chosen[3]), (row + 1, pairs.rejected[3])):
            read = one.tokens[: len(one.tokens) - unread].tolist()
            assert batch.tokens[place, : batch.ends[place] + 1].tolist() == read


def test_only_answers_count(pairs: Pairs) -> None:
    (batch,) = windows(pairs, unread=1).batches([0])
    parts = [part[int(pair)] for pair in batch.pairs for part in (pairs.chosen, pairs.rejected)]
    said = [targets[targets != IGNORED].tolist() for targets in batch.targets]
    assert said == [part.tokens[part.counted].tolist() for part in parts]


def test_processes_share_all_pairs_and_compute_as_many_batches(pairs: Pairs) -> None:
    seen, counts = [], set()
    for rank in range(3):
        ranks = Ranks(rank, Layout(data=3), torch.device("cpu"), mesh=None, control=None, background=None)
        batches = windows(pairs, ranks, unread=1).batches(range(10))
        counts.add(len(batches))
        seen += [int(pair) for batch in batches for pair in batch.pairs]
        assert all(batch.tokens.numel() <= 4 * SHAPE.context for batch in batches)
    assert sorted(seen) == list(range(20)) and counts == {4}


def test_a_batch_without_pairs_has_a_loss_of_zero_with_a_gradient(pairs: Pairs) -> None:
    last = Ranks(2, Layout(data=3), torch.device("cpu"), mesh=None, control=None, background=None)
    for make, loss, unread in ((build_model, language_loss, 1), (build_scored, judging_loss, 0)):
        (batch,) = windows(pairs, last, unread=unread).batches([0])
        model = parallel(make)
        found = loss(model, batch)
        found.backward()
        assert len(batch.pairs) == 0 and float(found.detach()) == 0
        assert all(part.grad is not None and not part.grad.any() for part in model.model.parameters())


def test_the_reference_is_computed_once_and_kept(tmp_path: Path) -> None:
    store, asked = open_store(tmp_path.as_uri()), []

    def score() -> Any:
        asked.append(1)
        yield torch.tensor([1, 0]), PairValues(torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -4.0]))

    for _ in range(2):
        reference = ReferenceCache(store, ["base", "data"], 2, ONE)
        reference.compute(score)
        assert [part.tolist() for part in reference.of(torch.tensor([0, 1]))] == [[-2.0, -1.0], [-4.0, -3.0]]
    assert asked == [1]
    ReferenceCache(store, ["base", "other data"], 2, ONE).compute(score)
    assert asked == [1, 1]


def test_a_reference_that_is_gone_is_not_computed_from_a_later_model(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    store.put("checkpoints/step-00000004-a1/manifest.json", b"{}")
    with pytest.raises(IntegrityError, match="found nothing, beside checkpoints of a later model"):
        ReferenceCache(store, ["base", "data"], 2, ONE)
