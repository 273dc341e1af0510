"""The loss over a sharded vocabulary is the loss, in value and gradient; a step that is not finite is not taken.

Also the program of each process that holds a part of the vocabulary: `test_loss.py RENDEZVOUS PROCESSES RANK`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from kindling_api.v1alpha1.model import PRESETS
from kindling_api.v1alpha1.optimizer import AdamW
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.training import TrainingSpec
from kindling_trainer.data.windows import Batch
from kindling_trainer.loop.instability import UnstableError
from kindling_trainer.loop.objective import Evaluation, Figures, Interruptible, LocalBatch
from kindling_trainer.loop.step import Stepper
from kindling_trainer.loss import IGNORED, token_log_probabilities, token_loss, vocab_parallel_loss
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.optim.adamw import build_adamw
from kindling_trainer.parallel.mesh import Ranks


def problem() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [2, 5, 12] with large values among them, and targets of which two do not count."""
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 12) * 20
    targets = torch.randint(12, (2, 5))
    targets[1, 3:] = IGNORED
    return logits, targets


def compare_slice(rendezvous: str, processes: int, rank: int) -> None:
    store = dist.FileStore(rendezvous, processes)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
    logits, targets = problem()
    whole = logits.clone().requires_grad_()
    expected = F.cross_entropy(whole.flatten(0, 1), targets.flatten(), reduction="sum", ignore_index=IGNORED)
    (expected * 0.25).backward()
    mine = logits.chunk(processes, dim=-1)[rank].contiguous().requires_grad_()
    group = dist.group.WORLD
    assert group is not None and whole.grad is not None
    loss = vocab_parallel_loss(mine, targets, group)
    (loss * 0.25).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(mine.grad, whole.grad.chunk(processes, dim=-1)[rank])
    compare_z_loss(logits, targets, processes, rank)
    compare_tokens(logits, targets, processes, rank)
    dist.destroy_process_group()


def compare_z_loss(logits: torch.Tensor, targets: torch.Tensor, processes: int, rank: int) -> None:
    """The z-loss of a slice, and its gradient, is that of the whole."""
    whole = logits.clone().requires_grad_()
    expected = token_loss(whole, targets, z_loss=0.01)
    (expected * 0.25).backward()
    mine = logits.chunk(processes, dim=-1)[rank].contiguous().requires_grad_()
    assert dist.group.WORLD is not None and whole.grad is not None
    loss = vocab_parallel_loss(mine, targets, dist.group.WORLD, z_loss=0.01)
    (loss * 0.25).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(mine.grad, whole.grad.chunk(processes, dim=-1)[rank])


def compare_tokens(logits: torch.Tensor, targets: torch.Tensor, processes: int, rank: int) -> None:
    """Each token's log-probability, and its gradient where tokens weigh differently and some have no probability."""
    logits[..., 10:] = float("-inf")
    targets = targets.clamp(max=9)
    whole = logits.clone().requires_grad_()
    expected = whole.log_softmax(-1).gather(-1, targets.clamp(min=0)[..., None]).squeeze(-1) * (targets != IGNORED)
    weights = torch.arange(10.0).view(2, 5)
    (expected * weights).sum().backward()
    mine = logits.chunk(processes, dim=-1)[rank].contiguous().requires_grad_()
    found = token_log_probabilities(mine, targets, dist.group.WORLD)
    (found * weights).sum().backward()
    assert whole.grad is not None
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(mine.grad, whole.grad.chunk(processes, dim=-1)[rank])


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_vocab_parallel_loss_is_cross_entropy(processes: int, tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(tmp_path / "rendezvous"), str(processes)]
    started = [subprocess.Popen([*command, str(rank)]) for rank in range(processes)]
    assert [process.wait(timeout=300) for process in started] == [0] * processes


@pytest.fixture(scope="module")
def alone() -> Iterator[dist.ProcessGroup]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert dist.group.WORLD is not None
    yield dist.group.WORLD
    dist.destroy_process_group()


def test_vocab_parallel_loss_of_one_process_is_the_plain_one(alone: dist.ProcessGroup) -> None:
    logits, targets = problem()
    torch.testing.assert_close(vocab_parallel_loss(logits, targets, alone), token_loss(logits, targets))
    tokens = token_log_probabilities(logits, targets)
    torch.testing.assert_close(token_log_probabilities(logits, targets, alone), tokens)
    torch.testing.assert_close(-tokens.sum(), token_loss(logits, targets))
    assert tokens[1, 3:].tolist() == [0.0, 0.0]


def test_the_z_loss_adds_the_square_of_the_log_normaliser_of_each_target_that_counts() -> None:
    logits, targets = problem()
    log_z = logits.exp().sum(dim=-1).log()
    added = token_loss(logits, targets, z_loss=1e-2) - token_loss(logits, targets)
    torch.testing.assert_close(added, 1e-2 * log_z[targets != IGNORED].square().sum(), rtol=1e-4, atol=1e-4)


class Learning:
    """The objective of pretraining, with nothing to try."""

    def __init__(self, model: Decoder) -> None:
        self.model = model

    def local_batch(self, step: int, interruptible: Interruptible[int]) -> LocalBatch[Batch]:
        windows = torch.randint(16, (4, 9), generator=torch.Generator().manual_seed(1))
        return LocalBatch([(part[:, :-1], part[:, 1:]) for part in windows.split(2)], count=2, normaliser=32)

    def loss(self, batch: Batch) -> tuple[torch.Tensor, Figures]:
        return token_loss(self.model(batch[0]), batch[1]), {"tokens": torch.tensor([batch[1].numel(), 1.0])}

    def evaluate(self, *, whole: bool, interruptible: Interruptible[Batch]) -> Evaluation:
        return Evaluation()


def stepper(**training: object) -> Stepper:
    shape = PRESETS["llama-tiny"].model_copy(update={"layers": 1, "context": 8})
    spec = TrainingSpec.model_validate({"steps": 10, **training})
    model = build_model(shape, 16)
    ranks = Ranks(0, Layout(), torch.device("cpu"), mesh=None, control=None, background=None)
    return Stepper(model, build_adamw(model, AdamW()), Learning(model), spec, ranks)


def test_a_step_that_is_not_finite_is_refused_and_leaves_the_weights() -> None:
    taking = stepper()
    with torch.no_grad():
        taking.model.norm.weight[0] = float("nan")
    before = {name: weight.clone() for name, weight in taking.model.named_parameters()}
    with pytest.raises(UnstableError) as caught:
        taking.take(taking.objective.local_batch(6, iter), 6)
    assert str(caught.value) == (
        "spec.training: found loss nan and gradient norm nan in step 7; allowed: finite numbers. To fix it: lower "
        "the optimizer's learningRate, lengthen the schedule's warmupFraction or set gradientClip: 1.0, and run "
        "again; the checkpoints so far are whole."
    )
    for name, weight in taking.model.named_parameters():
        torch.testing.assert_close(weight, before[name], equal_nan=True)


@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e3])
def test_gradients_are_clipped_to_the_norm_asked_for(clip: float) -> None:
    taking = stepper(gradientClip=clip)
    seen = []
    taking.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.nn.utils.get_total_norm([p.grad for p in taking.model.parameters()]).item())
    )
    taken = taking.take(taking.objective.local_batch(0, iter), 0)
    assert seen[0] == pytest.approx(min(taken.norm, clip) if clip else taken.norm, rel=1e-4)
    assert taken.figures["tokens"].tolist() == [32.0, 2.0], "the parts add up"


if __name__ == "__main__":
    compare_slice(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
