"""Pipeline parallelism: each process has a stage of the layers, through which the micro-batches go.

What a stage lacks is replaced, from outside, by modules that pass on, receive or send. So a stage computes the model's
own forward pass, its parameters have the names that they have in the whole model, and a backward pass from stage to
stage is `backward()` of what the forward pass gave. Every stage reads the tokens; the last one has the loss.
`stages.one_forward_one_backward` is the order in which a stage takes its micro-batches;
docs/design/0015-stages-of-a-pipeline.md says why it is all so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from kindling_trainer.estimate.pipeline_schedule import stages_of
from kindling_trainer.models import Decoder
from kindling_trainer.models.initialize import plain_name
from kindling_trainer.parallel.mesh import Ranks

TIED = "embedding.weight"
"""The parameter that two stages have where head and embedding are one: both have it under this name."""


def cut_to_stage(model: Decoder, ranks: Ranks, precision: torch.dtype) -> None:
    """Leave this process's stage of the model, in place; all of it where there is one stage.

    Args:
        precision: of the activations.
    """
    if ranks.layout.pipeline == 1:
        return
    stage = stages_of(model.shape, model.embedding.num_embeddings, ranks.layout.pipeline)[ranks.stage]
    link = Link(ranks)
    for index in range(len(model.layers)):
        if index not in stage.layers:
            model.layers[index] = Elsewhere()
    if not stage.is_first:
        tied = cast(nn.Parameter, model.head.weight) if stage.is_last and model.shape.tied_embeddings else None
        replacements: dict[str, nn.Module] = {
            "embedding": Received(link, model.shape.width, precision, ranks.layout.tensor, tied),
            "scale": Elsewhere(),
            "positions": Nothing(),
            "dropout": Elsewhere(),
        }
    else:
        replacements = {}
    if not stage.is_last:
        replacements |= {"norm": Elsewhere(), "head": Sent(link)}
    for name, module in replacements.items():
        if hasattr(model, name):
            setattr(model, name, module)
    model.tie()


def layers_here(model: Decoder) -> dict[int, nn.Module]:
    """The layers of this process's stage, by their number."""
    return {index: layer for index, layer in enumerate(model.layers) if not isinstance(layer, Elsewhere)}


class Elsewhere(nn.Module):
    """A part of the model that another stage has: what comes in goes out."""

    def forward(self, x: Tensor, *others: object) -> Tensor:
        """x → x, whatever else the part is given."""
        return x


class Nothing(nn.Module):
    """A summand that an earlier stage has added."""

    def forward(self, _: object) -> int:
        """0."""
        return 0


class Received(nn.Module):
    """In the place of the embedding: the activations of the stage before, to which the gradient goes back."""

    def __init__(
        self, link: Link, width: int, precision: torch.dtype, tensor: int, tied: nn.Parameter | None = None
    ) -> None:
        super().__init__()
        self.link, self.width, self.precision, self.tensor = link, width, precision, tensor
        self.register_parameter("weight", tied)  # the head's: see TIED

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] → [B, T / tp, W]."""
        rows, positions = tokens.shape
        size = (rows, positions // self.tensor, self.width)
        hidden = self.link.receive(torch.empty(size, dtype=self.precision, device=tokens.device))
        if torch.is_grad_enabled():
            hidden.requires_grad_().register_hook(self.link.send_back)
        return hidden


class Sent(nn.Module):
    """In the place of the head: the activations go to the next stage, and 0 stays in the place of the loss."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self.link = link

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T / tp, W] → the scalar 0, whose backward pass waits for the gradient of x."""
        sent: Tensor = _Send.apply(x, self.link)
        return sent


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, link: Link) -> Tensor:
        link.send(x)
        ctx.link, ctx.size, ctx.dtype = link, x.shape, x.dtype
        return x.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.link.receive_back(gradients[0].new_empty(ctx.size, dtype=ctx.dtype)), None


class Link:
    """The stages before and after this one. What is sent is on its way while this process goes on computing."""

    def __init__(self, ranks: Ranks) -> None:
        self._stage, self._downstream, self._upstream = ranks.stage, ranks.pipeline_group, ranks.upstream
        self._sending: dict[int, tuple[dist.Work | None, Tensor]] = {}
        """What was sent last, to each neighbour."""

    def receive(self, x: Tensor) -> Tensor:
        """Fills x with the activations of the stage before."""
        dist.recv(x, group=self._downstream, group_src=self._stage - 1)
        return x

    def send(self, x: Tensor) -> None:
        """Activations, to the next stage."""
        self._send(x, self._stage + 1, self._downstream)

    def receive_back(self, gradient: Tensor) -> Tensor:
        """Fills `gradient` with that of what was sent to the next stage."""
        dist.recv(gradient, group=self._upstream, group_src=self._stage + 1)
        return gradient

    def send_back(self, gradient: Tensor) -> None:
        """The gradient of what the stage before has sent, to there."""
        self._send(gradient, self._stage - 1, self._upstream)

    def _send(self, tensor: Tensor, stage: int, group: dist.ProcessGroup | None) -> None:
        work, _ = self._sending.pop(stage, (None, None))
        if work is not None:  # one at a time is kept in memory until it has arrived
            work.wait()
        tensor = tensor.detach().contiguous()
        self._sending[stage] = dist.isend(tensor, group=group, group_dst=stage), tensor


def sum_tied_gradients(model: Decoder, ranks: Ranks) -> None:
    """Give both copies of a tied embedding, on the first stage and on the last, the sum of their gradients, as
    Megatron-LM does: equal once, they then stay equal."""
    group, last = ranks.pipeline_group, ranks.layout.pipeline - 1
    if group is None or not model.shape.tied_embeddings or ranks.stage not in (0, last):
        return
    gradient = model.embedding.weight.grad
    assert isinstance(gradient, DTensor)
    mine = gradient.to_local()
    theirs = torch.empty_like(mine)
    if ranks.on_last_stage:
        dist.recv(theirs, group=group, group_src=0)
        dist.send(mine, group=group, group_dst=0)
    else:
        dist.send(mine, group=group, group_dst=last)
        dist.recv(theirs, group=group, group_src=last)
    mine += theirs


def norm_over_stages(norm: float, ranks: Ranks) -> float:
    """The norm of what all stages have, from each one's; the same number on all."""
    if ranks.pipeline_group is None:
        return norm
    square = torch.tensor(norm, dtype=torch.float64, device=ranks.device).square()
    dist.all_reduce(square, group=ranks.pipeline_group)
    return math.sqrt(float(square))


def counted_parameters(model: Decoder, ranks: Ranks) -> Iterator[tuple[str, nn.Parameter]]:
    """This stage's parameters by their plain names, without what an earlier stage has, too."""
    for wrapped, parameter in model.named_parameters():
        name = plain_name(wrapped)
        if name != TIED or ranks.stage == 0:
            yield name, parameter


def whole_parameters(model: Decoder, ranks: Ranks) -> Iterator[tuple[str, Tensor]]:
    """Each parameter whole, on the CPU, one at a time: the first process sees all of the model's, in their order, the
    others those of their stage. All processes go through it together."""
    counted = dict(counted_parameters(model, ranks))
    sizes = [{name: parameter.shape for name, parameter in counted.items()}]
    if ranks.layout.pipeline > 1:
        sizes = ranks.from_each(sizes[0])
    sends = ranks.stage > 0 and ranks.rank % ranks.stage_size == 0
    for name, parameter in counted.items():
        whole = (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().cpu()
        if sends:
            dist.send(whole.contiguous(), 0, group=ranks.control)
        yield name, whole
    if ranks.leads:
        for sender in range(ranks.stage_size, ranks.layout.processes, ranks.stage_size):
            for name, size in sizes[sender].items():
                whole = torch.empty(size)
                dist.recv(whole, sender, group=ranks.control)
                yield name, whole
