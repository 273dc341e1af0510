"""Context parallelism: several processes share each sequence, and each computes with its part of the positions.

Only attention needs the others' positions: it gathers their keys and values, and sends the gradients of these back
(Dubey et al. 2024, Llama 3, §3.3.2). docs/design/0016-sequences-over-processes.md says why so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kindling_trainer.models import Decoder
from kindling_trainer.models.layers import Attention, CoreAttention


@dataclass(frozen=True)
class Cut:
    """How C processes share sequences of T positions, T a multiple of 2C.

    There are 2C chunks, of which process r holds chunk r and chunk 2C - 1 - r: one that sees little and one that sees
    much, so that under the causal mask all processes compute the same amount.
    """

    group: dist.ProcessGroup
    rank: int
    degree: int

    @property
    def chunks(self) -> tuple[int, int]:
        """The chunks of this process, in the order in which it holds them."""
        return self.rank, 2 * self.degree - 1 - self.rank

    def own(self, whole: Tensor, dim: int = 1) -> Tensor:
        """This process's positions of what has all of them along `dim`: [..., T, ...] → [..., T / C, ...]."""
        return self.parts(whole, dim)[self.rank]

    def parts(self, whole: Tensor, dim: int) -> list[Tensor]:
        """Each process's positions, in the order of their ranks."""
        pieces = whole.chunk(2 * self.degree, dim)
        return [torch.cat(pair, dim) for pair in zip(pieces[: self.degree], reversed(pieces), strict=False)]

    def whole(self, own: Tensor, dim: int = 1) -> Tensor:
        """All positions of what each process has its own of: [..., T / C, ...] → [..., T, ...].

        Whatever is computed from it, all processes are to compute alike: a gradient goes to this process's part alone.
        """
        return in_order(self._from_each(own), dim)

    def sum(self, own: Tensor) -> Tensor:
        """The sum of what each process has, the same on all, with gradients as those of `whole`."""
        return torch.stack(self._from_each(own)).sum(dim=0)

    def _from_each(self, own: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(own) for _ in range(self.degree)]
        dist.all_gather(parts, own.detach().contiguous(), group=self.group)
        parts[self.rank] = own
        return parts


def apply_context_parallel(model: Decoder, cut: Cut) -> None:
    """Make each block's attention, in place, one of the own positions to those of all processes.

    The model is then to be given its part of the tokens, with their positions.
    """
    for module in list(model.modules()):
        if isinstance(module, Attention):
            assert isinstance(module.core, CoreAttention)
            module.core = ContextAttention(module.core, cut)


class ContextAttention(nn.Module):
    """Attention of a process's own positions to those of all processes; it takes the place of `CoreAttention`."""

    def __init__(self, core: CoreAttention, cut: Cut) -> None:
        super().__init__()
        self.core, self.cut = core, cut

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, H, T / C, D] each → [B, H, T / C, D]; `mask` is [B, 1, T / C, T], its keys in the order of the sequence.

        Each chunk sees a prefix of the sequence, so that nothing is computed of what comes after it.
        """
        key, value = AllPositions.apply(torch.stack([key, value]), self.cut)  # [B, H, T, D]
        length = query.shape[2] // 2
        mixed: list[Tensor] = []
        for queries, chunk in zip(query.split(length, dim=2), self.cut.chunks, strict=True):
            seen, first = (chunk + 1) * length, len(mixed) * length
            sees = None if mask is None else mask[:, :, first : first + length, :seen]
            mixed.append(self.attend(queries, key[:, :, :seen], value[:, :, :seen], sees))
        return torch.cat(mixed, dim=2)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Queries [B, H, Q, D] of the last Q of the S positions of keys and values [B, H, S, D] → [B, H, Q, D]."""
        if mask is None and _flash_takes(query):
            # Here, unlike elsewhere, the last query of a causal pass sees the last key (see torch.nn.attention.bias).
            attend = torch.ops.aten._scaled_dot_product_flash_attention
            dropout = self.core.dropout if self.training else 0.0
            mixed: Tensor = attend(query, key, value, dropout, is_causal=True, scale=self.core.scale)[0]
            return mixed
        if mask is None:
            length, seen = query.shape[2], key.shape[2]
            mask = torch.ones(length, seen, dtype=torch.bool, device=query.device).tril(seen - length)
        return self.core(query, key, value, mask)


class AllPositions(torch.autograd.Function):
    """From each process's positions those of all: [K, B, H, T / C, D] → [K, B, H, T, D].

    Each process uses them otherwise. So the gradient of a position is the sum of all processes', and goes to the one
    that holds it.
    """

    @staticmethod
    def forward(ctx: Any, own: Tensor, cut: Cut) -> Tensor:
        ctx.cut = cut
        parts = own.new_empty(cut.degree * len(own), *own.shape[1:])
        dist.all_gather_into_tensor(parts, own.contiguous(), group=cut.group)
        return in_order(parts.chunk(cut.degree), dim=-2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        parts = ctx.cut.parts(gradients[0], dim=-2)
        own = torch.empty_like(parts[0])
        dist.reduce_scatter_tensor(own, torch.cat(parts), group=ctx.cut.group)
        return own, None


def in_order(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The whole sequence from the parts of all processes, in the order of their ranks."""
    firsts, seconds = zip(*(part.chunk(2, dim) for part in parts), strict=True)
    return torch.cat([*firsts, *reversed(seconds)], dim)


def _flash_takes(query: Tensor) -> bool:
    """Whether FlashAttention (Dao 2023, arXiv:2307.08691) computes with such queries."""
    fits = query.element_size() == 2 and query.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    return query.device.type == "cuda" and fits and torch.cuda.get_device_capability(query.device) >= (8, 0)
