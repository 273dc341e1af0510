"""What of a model an alignment trains, where that is not all of it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.errors import SpecError, explain, finding
from kindling_api.rules import OneOf, cel
from kindling_api.v1alpha1.model import ModelShape

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""A linear layer of each block, by the name that it has in transformers' Llama."""

_GATED = "gate_proj"


class LoRA(Spec):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): beside each chosen matrix W, which stays as it is, two
    small ones are trained, and W + alpha / rank · BA computes. The defaults are those of TRL's command line but for
    targets, of which it takes two: all matrices learn more than few (Dettmers et al. 2023, arXiv:2305.14314, §4)."""

    model_config = cel(
        (
            "!has(self.targets) || self.targets.all(one, self.targets.exists_one(other, other == one))",
            "each of targets may be given once",
        )
    )

    rank: Annotated[int, Field(ge=1, le=4096)] = 16
    """Columns of B and rows of A."""
    alpha: Annotated[float, Field(gt=0, le=65_536)] = 32.0
    """Strength: what the adapters add is multiplied by alpha / rank."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=7)] | None = None
    """Which linear layers of each block have an adapter; absent means all. GPT-2, which has no `gate_proj`, has its
    matrices by the same names: `up_proj` is what reads its stream, `down_proj` what writes it."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Part of an adapter's input that is left out at random in each step of SFT; no other method has dropout."""
    rank_stabilized: bool = False
    """Multiply by alpha / √rank instead (Kalajdzievski 2023, arXiv:2312.03732), so that a high rank learns as fast."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if self.targets is not None and len(set(self.targets)) < len(self.targets):
            found, remedy = ", ".join(self.targets), f"use {', '.join(dict.fromkeys(self.targets))}"
            raise ValueError(finding(found=found, allowed="each target once", remedy=remedy))
        return self

    @property
    def scale(self) -> float:
        """What BA is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilized else self.rank)

    def targets_in(self, shape: ModelShape) -> tuple[Target, ...]:
        """The linear layers of a model's blocks that have an adapter.

        Raises:
            SpecError: one is named that its blocks do not have.
        """
        every: tuple[Target, ...] = Target.__args__  # type: ignore[attr-defined]
        there = tuple(name for name in every if name != _GATED or shape.architecture == "llama")
        if self.targets is None:
            return there
        if unknown := [name for name in self.targets if name not in there]:
            allowed = f"the linear layers of a {shape.architecture} block: {', '.join(there)}"
            remedy = f"remove {unknown[0]}, or leave targets out to train them all"
            raise SpecError(
                explain("spec.adapter.lora.targets", found=", ".join(unknown), allowed=allowed, remedy=remedy)
            )
        return tuple(name for name in there if name in self.targets)


class Adapter(OneOf):
    """What is trained in the place of the model's weights; exactly one."""

    lora: LoRA | None = None
    """Low-rank adapters."""
