"""Sequences that processes share: each computes with its positions, and together they compute what one would.

Also the program of each of these processes: `test_context.py RENDEZVOUS PROCESSES RANK`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.training import TrainingSpec
from kindling_trainer.loss import IGNORED
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.layers import CoreAttention, ValueHead, document_mask
from kindling_trainer.parallel.apply import parallelize
from kindling_trainer.parallel.context import ContextAttention, Cut, in_order
from kindling_trainer.parallel.mesh import Ranks

CPU = torch.device("cpu")
SIZES: dict[str, Any] = {"layers": 2, "heads": 4, "width": 32, "ffn_width": 48, "context": 24}
SHAPES = {
    "llama": ModelShape.model_validate(SIZES | {"architecture": "llama", "kv_heads": 2}),
    "gpt2": ModelShape.model_validate(SIZES | {"architecture": "gpt2", "kv_heads": 4, "bias": True}),
}


@pytest.mark.parametrize("degree", [1, 2, 3, 8])
def test_each_process_has_an_early_and_a_late_part_and_together_they_have_all(degree: int) -> None:
    whole = torch.arange(2 * 48).view(2, 48)
    cuts = [Cut(None, rank, degree) for rank in range(degree)]  # type: ignore[arg-type]
    parts = [cut.own(whole) for cut in cuts]
    assert {part.shape for part in parts} == {(2, 48 // degree)}
    assert torch.equal(in_order(parts, dim=1), whole)
    assert {sum(cut.chunks) for cut in cuts} == {2 * degree - 1}, "all see as much"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kv_heads", [2, 4])
def test_on_a_gpu_each_chunk_sees_what_comes_before_it_and_no_more(kv_heads: int) -> None:
    attention = ContextAttention(CoreAttention(dropout=0.0), Cut(None, 0, 2))  # type: ignore[arg-type]
    query, key, value = (
        torch.randn(2, heads, length, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
        for heads, length in ((4, 32), (kv_heads, 96), (kv_heads, 96))
    )
    mask = torch.ones(32, 96, dtype=torch.bool, device="cuda").tril(64)[None, None]
    weights, found = torch.randn_like(query), []
    for sees in (None, mask):
        mixed = attention.attend(query, key, value, sees)
        (mixed * weights).sum().backward()
        found.append([mixed, *(tensor.grad for tensor in (query, key, value))])
        query.grad = key.grad = value.grad = None
    torch.testing.assert_close(*found, atol=0.02, rtol=0.02)


@pytest.mark.slow
def test_processes_that_share_sequences_compute_what_one_would(tmp_path: Path) -> None:
    processes = 3
    command = [sys.executable, __file__, str(tmp_path / "rendezvous"), str(processes)]
    started = [subprocess.Popen([*command, str(rank)]) for rank in range(processes)]
    assert [process.wait(timeout=300) for process in started] == [0] * processes


def compare(rendezvous: str, processes: int, rank: int) -> None:
    """As one of the processes: attention, and whole models, plain and with several texts in a sequence."""
    dist.init_process_group("gloo", store=dist.FileStore(rendezvous, processes), rank=rank, world_size=processes)
    assert dist.group.WORLD is not None
    cut = Cut(dist.group.WORLD, rank, processes)
    torch.manual_seed(0)
    documents = torch.tensor([[0] * 7 + [1] * 11 + [2] * 6, [0] * 20 + [-1] * 4])
    for texts in (None, documents):
        compare_attention(cut, texts)
        for shape in SHAPES.values():
            compare_models(cut, shape, texts)
    dist.destroy_process_group()


def compare_attention(cut: Cut, documents: Tensor | None) -> None:
    core, mask = CoreAttention(dropout=0.0), None if documents is None else document_mask(documents)
    whole = [torch.randn(2, heads, 24, 8, requires_grad=True) for heads in (4, 2, 2)]
    own = [cut.own(tensor.detach(), dim=2).requires_grad_() for tensor in whole]
    expected = core(*whole, mask)
    mixed = ContextAttention(core, cut)(*own, None if mask is None else cut.own(mask, dim=2))
    torch.testing.assert_close(mixed, cut.own(expected, dim=2))
    weights = torch.randn_like(expected)
    (expected * weights).sum().backward()
    (mixed * cut.own(weights, dim=2)).sum().backward()
    for part, tensor in zip(own, whole, strict=True):
        assert tensor.grad is not None
        torch.testing.assert_close(part.grad, cut.own(tensor.grad, dim=2))


def compare_models(cut: Cut, shape: ModelShape, documents: Tensor | None) -> None:
    alone = Ranks(0, Layout(), CPU, mesh=None, control=None, background=None)
    shared = Ranks(cut.rank, Layout(context=cut.degree), CPU, mesh=None, control=None, background=None, context=cut)
    expected, found = (computed(ranks, shape, documents) for ranks in (alone, shared))
    for name, tensor in expected.items():
        if name.startswith("gradient"):  # FSDP adds them up
            dist.all_reduce(found[name])
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4, msg=lambda said, name=name: name + said)


def computed(ranks: Ranks, shape: ModelShape, documents: Tensor | None) -> dict[str, Tensor]:
    """What an objective may ask of a model, and the gradients of what it may make of it."""
    generator = torch.Generator().manual_seed(1)
    tokens, targets = torch.randint(40, (2, 2, 24), generator=generator).unbind()
    targets[1, 20:] = IGNORED
    model = build_model(shape, 40)
    model.value = ValueHead(shape.width)
    initialize(model, 1)
    parallel = parallelize(model, TrainingSpec(steps=1, precision="fp32"), ranks, compiled=False)
    loss = parallel.token_loss(tokens, targets, documents)
    loss.backward()
    facts = {"loss": loss.detach(), **gradients("gradient of the loss", model)}
    chances = parallel.log_probabilities(tokens, targets, documents)
    chances.square().sum().backward()
    facts |= {"log-probabilities": chances.detach(), **gradients("gradient of the log-probabilities", model)}
    logits, values = parallel.logits_and_values(tokens, documents)
    (logits.square().mean() + values.square().mean()).backward()
    facts |= {"logits": logits.detach(), "values": values.detach(), **gradients("gradient of both", model)}
    torch.testing.assert_close(parallel.logits(tokens, documents), logits)
    return facts


def gradients(what: str, model: Decoder) -> dict[str, Tensor]:
    found = {f"{what}: {name}": weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


if __name__ == "__main__":
    compare(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
