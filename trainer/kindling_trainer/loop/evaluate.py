"""Tries the model: its loss on the validation part, and texts that it continues."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from tokenizers import Tokenizer
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from kindling_api.errors import SpecError, explain
from kindling_trainer.loss import IGNORED
from kindling_trainer.models import Decoder
from kindling_trainer.parallel.apply import ParallelModel

TEMPERATURE = 0.8
"""Of the texts shown during training: high enough not to repeat itself, low enough to be read."""

Counted = TypeVar("Counted", bound=tuple[Tensor, ...])
"""A batch whose second part is its targets."""


def mean_loss(model: ParallelModel, loss: Callable[[Counted], Tensor], batches: Iterable[Counted]) -> float | None:
    """The mean loss over all targets of all processes' batches, in nats a token; None where there is no target."""
    sums = torch.zeros(2, dtype=torch.float64, device=model.ranks.device)
    with evaluating(model.model):
        for batch in batches:
            sums[0] += loss(batch)
            sums[1] += (batch[1] != IGNORED).sum().to(sums.device)
    total, count = model.ranks.sum_over_batch(sums).tolist()
    return total / count if count else None


@dataclass(frozen=True)
class Sample:
    """A prompt, and how the model goes on."""

    prompt: str
    text: str
    toxicity: float | None = None
    """Toxicity of the text, where that was asked."""


def check_prompts(tokenizer: Tokenizer, prompts: Sequence[str]) -> None:
    """Refuse, before the first step, a prompt that the first evaluation could not continue.

    Raises:
        SpecError: a prompt has a character for which the tokenizer has no token.
    """
    for number, prompt in enumerate(prompts):
        try:
            tokenizer.encode(prompt)
        except Exception as error:  # the library raises Exception itself
            where, allowed = f"spec.evaluation.prompts[{number}]", "text that the dataset's tokenizer covers"
            remedy = "leave out characters that the dataset does not have"
            raise SpecError(explain(where, found=repr(prompt), allowed=allowed, remedy=remedy)) from error


def continue_prompts(
    model: ParallelModel, tokenizer: Tokenizer, prompts: Iterable[str], *, tokens: int, stop: int | None
) -> list[Sample]:
    """Sampled continuations of `prompts`, up to `tokens` tokens each or to the token `stop`."""
    size, continued = tokenizer.get_vocab_size(), []
    for prompt in prompts:
        ids = tokenizer.encode(prompt).ids or [stop or 0]
        text = tokenizer.decode(sample(model, ids, tokens=tokens, stops={stop}, vocab_size=size))
        continued.append(Sample(prompt, text))
    return continued


def sample(
    model: ParallelModel, prompt: list[int], *, tokens: int, stops: Container[int | None], vocab_size: int
) -> list[int]:
    """Up to `tokens` tokens that follow `prompt`, all below `vocab_size`, none among `stops`.

    All processes compute every position anew, in lock step: the one way that works on every layout. `generate` is the
    fast way, for a whole model.
    """
    ids, ranks = list(prompt), model.ranks
    generator = torch.Generator().manual_seed(0)
    with evaluating(model.model):
        while len(ids) - len(prompt) < tokens:
            logits = _last_logits(model, ids[-model.model.shape.context :])
            chosen = torch.zeros(1, dtype=torch.int64)
            if logits is not None:
                chosen = torch.multinomial((logits[:vocab_size] / TEMPERATURE).softmax(0), 1, generator=generator)
            if ranks.control is not None:  # equal logits on all of the last stage, but for rounding
                dist.broadcast(chosen, ranks.layout.processes - ranks.stage_size, group=ranks.control)
            if chosen.item() in stops:
                break
            ids.append(int(chosen))
    return ids[len(prompt) :]


def _last_logits(model: ParallelModel, ids: list[int]) -> Tensor | None:
    """The logits [V] after the last of `ids`, on the CPU; None before a pipeline's last stage."""
    ranks = model.ranks
    padding = -len(ids) % ranks.layout.length_multiple  # positions are cut evenly; later ones change nothing
    tokens = torch.tensor([ids + [0] * padding], device=ranks.device)
    every = model.logits(tokens)
    if not ranks.on_last_stage:
        return None
    logits = every[0, len(ids) - 1].float()
    if ranks.tensor_group is not None:
        slices = [torch.empty_like(logits) for _ in range(ranks.layout.tensor)]
        dist.all_gather(slices, logits.contiguous(), group=ranks.tensor_group)
        logits = torch.cat(slices)
    return logits.cpu()


@contextmanager
def evaluating(model: Decoder) -> Iterator[None]:
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
