"""Tries the model: its loss on the validation part, and texts that it continues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from kindling_trainer.data.windows import Batch
from kindling_trainer.loss import IGNORED
from kindling_trainer.models import Decoder
from kindling_trainer.parallel.compilation import Loss
from kindling_trainer.parallel.mesh import Ranks

TEMPERATURE = 0.8
"""Of the texts shown during training: high enough not to repeat itself, low enough to be read."""


def validation_loss(model: Decoder, loss: Loss, batches: Iterable[Batch], ranks: Ranks) -> float | None:
    """The mean loss over all targets of all processes' batches, in nats a token; None where there is no target."""
    sums = torch.zeros(2, dtype=torch.float64, device=ranks.device)
    with _trying(model):
        for tokens, targets in batches:
            sums[0] += loss(tokens.to(ranks.device), targets.to(ranks.device))
            sums[1] += (targets != IGNORED).sum()
    total, count = ranks.sum_over_batch(sums).tolist()
    return total / count if count else None


@dataclass(frozen=True)
class Continuation:
    """A prompt, and how the model goes on."""

    prompt: str
    text: str


def continue_prompts(
    model: Decoder, tokenizer: Tokenizer, prompts: Iterable[str], *, tokens: int, stop: int | None, ranks: Ranks
) -> list[Continuation]:
    """Sampled continuations of `prompts`, up to `tokens` tokens each or to the token `stop`.

    All processes compute every position anew, in lock step: the one way that works on every layout. `generate` is the
    fast way, for a whole model.
    """
    with _trying(model):
        return [Continuation(prompt, _continue(model, tokenizer, prompt, tokens, stop, ranks)) for prompt in prompts]


def _continue(model: Decoder, tokenizer: Tokenizer, prompt: str, tokens: int, stop: int | None, ranks: Ranks) -> str:
    ids = tokenizer.encode(prompt).ids or [stop or 0]
    generator = torch.Generator().manual_seed(0)
    start = len(ids)
    while len(ids) - start < tokens:
        logits = _last_logits(model, ids[-model.shape.context :], ranks)[: tokenizer.get_vocab_size()]
        chosen = torch.multinomial((logits / TEMPERATURE).softmax(0), 1, generator=generator)
        if ranks.control is not None:
            dist.broadcast(chosen, 0, group=ranks.control)  # equal logits on all, but for rounding
        if chosen.item() == stop:
            break
        ids.append(int(chosen))
    return tokenizer.decode(ids[start:])


def _last_logits(model: Decoder, ids: list[int], ranks: Ranks) -> Tensor:
    """The logits [V] after the last of `ids`, on the CPU."""
    padding = (
        -len(ids) % ranks.layout.tensor
    )  # sequence parallelism cuts the positions evenly; later ones change nothing
    tokens = torch.tensor([ids + [0] * padding], device=ranks.device)
    logits = model(tokens)[0, len(ids) - 1].float()
    if ranks.tensor_group is not None:
        slices = [torch.empty_like(logits) for _ in range(ranks.layout.tensor)]
        dist.all_gather(slices, logits.contiguous(), group=ranks.tensor_group)
        logits = torch.cat(slices)
    return logits.cpu()


@contextmanager
def _trying(model: Decoder) -> Iterator[None]:
    """Without gradients, dropout and compiler: trying is rare, and not worth a second compilation."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # without a backward pass, what FSDP2 gathered stays gathered
        model.train(was_training)
