"""How the next token is chosen from the logits: pure functions, applied in the order of `_shaped`.

Logits are one vector [V] in fp32. A token that is ruled out has the logit -inf.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kindling_api.errors import SpecError, explain


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """How a text is continued. The defaults suit a small base model; temperature 0 is greedy."""

    max_tokens: int = 200
    """Most tokens to add; the end-of-document token may end the text earlier."""
    temperature: float = 0.8
    """Divides the logits; 0 always takes the likeliest token. What is nearer to 0 than 0.001 is refused: no two logits
    are that near, so that it can only be a slip."""
    top_k: int | None = None
    """Choose among this many likeliest tokens only."""
    top_p: float | None = None
    """Choose among the fewest likeliest tokens that hold this much probability together; at 0 it is the likeliest."""
    min_p: float | None = None
    """Choose among tokens at least this fraction as likely as the likeliest."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that already occur become less likely; 1 changes nothing."""
    seed: int | None = None
    """Makes the choice repeatable; None takes a new seed."""

    def __post_init__(self) -> None:
        """Checks the bounds.

        Raises:
            SpecError: a value is out of them.
        """
        temperature, top_p, penalty = self.temperature, self.top_p, self.repetition_penalty
        checks = [
            ("max_tokens", self.max_tokens >= 1, "a whole number from 1", "use 200"),
            ("temperature", temperature == 0 or 1e-3 <= temperature <= 100, "0 (greedy), or 0.001 to 100", "use 0.8"),
            ("top_k", self.top_k is None or self.top_k >= 1, "a whole number from 1", "leave it out, or use 50"),
            (
                "top_p",
                top_p is None or top_p == 0 or 1e-6 <= top_p <= 1,
                "0 (the likeliest token alone), or 0.000001 to 1",
                "leave it out, or use 0.95",
            ),
            ("min_p", self.min_p is None or 0 < self.min_p <= 1, "over 0, at most 1", "leave it out, or use 0.05"),
            ("repetition_penalty", 0.01 <= penalty <= 100, "0.01 to 100; 1 is none", "use 1.1"),
        ]
        for name, holds, allowed, remedy in checks:
            if not holds:
                raise SpecError(explain(name, found=getattr(self, name), allowed=allowed, remedy=remedy))


def choose(logits: Tensor, seen: Sequence[int], options: GenerationOptions, generator: torch.Generator) -> int:
    """The next token after the tokens `seen`; `generator` belongs to the CPU."""
    return choose_each(logits[None], [seen], [options], [generator])[0]


def choose_each(
    logits: Tensor,
    seen: Sequence[Sequence[int]],
    options: Sequence[GenerationOptions],
    generators: Sequence[torch.Generator],
) -> list[int]:
    """The next token of each row of logits [B, V]; the choice for one does not depend on which others there are.

    Raises:
        ArithmeticError: the logits of a row are no numbers. Nothing was drawn then, for any row.
    """
    rows = [_shaped(*row) for row in zip(logits.float().cpu(), seen, options, strict=True)]
    shaped = torch.stack(rows)
    highest, likeliest = shaped.max(dim=-1)
    if not highest.isfinite().all():
        raise ArithmeticError("the model's logits are no numbers")
    drawn = [row for row, option in enumerate(options) if option.temperature > 0]
    if not drawn:
        return likeliest.tolist()
    shares = shaped[drawn].double().softmax(dim=-1).cumsum(dim=-1)
    heights = torch.stack([torch.rand((1,), generator=generators[row], dtype=torch.float64) for row in drawn])
    likeliest[drawn] = torch.searchsorted(shares, heights * shares[:, -1:], right=True)[:, 0]
    return likeliest.tolist()


def _shaped(logits: Tensor, seen: Sequence[int], options: GenerationOptions) -> Tensor:
    """The logits [V] of which the choice is drawn."""
    logits = penalize(logits, seen, options.repetition_penalty)
    if options.temperature == 0:
        return logits
    logits = (logits - logits.max()) / options.temperature  # the likeliest is 0, whatever the temperature
    if options.top_k is not None:
        logits = keep_top_k(logits, options.top_k)
    if options.top_p is not None:
        logits = keep_top_p(logits, options.top_p)
    if options.min_p is not None:
        logits = keep_min_p(logits, options.min_p)
    return logits


def penalize(logits: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Makes tokens that were `seen` less likely (Keskar et al. 2019, CTRL, §4.1).

    A positive logit is divided by the penalty and a negative one multiplied, so that both fall. Tokens that have no
    logit cannot be chosen anyway.
    """
    if penalty == 1 or not seen:
        return logits
    tokens = torch.tensor(sorted(token for token in set(seen) if token < len(logits)), dtype=torch.int64)
    tokens = tokens.to(logits.device)
    found = logits[tokens]
    return logits.index_copy(0, tokens, torch.where(found > 0, found / penalty, found * penalty))


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Rules out all but the `k` likeliest tokens (Fan et al. 2018, Hierarchical Neural Story Generation, §5.4)."""
    kept = logits.topk(min(k, len(logits))).indices
    return _only(logits, kept)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Rules out all but the fewest likeliest tokens that hold probability `p` or more (Holtzman et al. 2020, §3.1).

    It is one at least, however small `p` is.
    """
    order = logits.argsort(descending=True, stable=True)
    probabilities = logits[order].softmax(dim=0)
    before = probabilities.cumsum(dim=0) - probabilities
    kept = before < p
    kept[0] = True
    return _only(logits, order[kept])


def keep_min_p(logits: Tensor, p: float) -> Tensor:
    """Rules out tokens less than `p` times as likely as the likeliest (Nguyen et al. 2024, Min-p Sampling, §3)."""
    return logits.masked_fill(logits < logits.max() + math.log(p), -torch.inf)


def _only(logits: Tensor, kept: Tensor) -> Tensor:
    return torch.full_like(logits, -torch.inf).index_copy(0, kept, logits[kept])
