"""The special tokens that a model's files name, in the words of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""What a chat template may ask for: `SPECIAL_TOKENS_ATTRIBUTES` of transformers."""

NUMBERED = ("bos_token_id", "eos_token_id", "pad_token_id")
"""What config.json says of them."""


@dataclass(frozen=True)
class SpecialTokens:
    """What the files of a model say of its special tokens."""

    named: Mapping[str, str] = field(default_factory=dict)
    """Texts by `NAMES`, as a chat template writes them; only those that there are."""
    additional: Sequence[str] = ()
    """Further ones."""
    bos: int | None = None
    """The token with which a text begins where there is nothing else."""
    eos: int | None = None
    """The token that ends a document."""
    pad: int | None = None
    """What fills up the shorter texts of a batch."""
    stops: tuple[int, ...] = ()
    """Every token that ends what the model says."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """All of config.json, of a model that was read."""
    generation: Mapping[str, Any] = field(default_factory=dict)
    """All of generation_config.json."""

    @property
    def numbered(self) -> dict[str, Any]:
        """The fields of config.json that number such tokens."""
        return {name: self.config[name] for name in NUMBERED if name in self.config}

    def padded_with(self, pad: int, text: str) -> SpecialTokens:
        """These, with another padding token."""
        config, generation = ({**fields, "pad_token_id": pad} for fields in (self.config, self.generation))
        return replace(self, named={**self.named, "pad_token": text}, pad=pad, config=config, generation=generation)


def special_tokens_of(end_of_document: int | None, text: str | None) -> SpecialTokens:
    """Those of a model of ours, to which the end of one document is the beginning of the next."""
    if end_of_document is None or text is None:
        return SpecialTokens()
    return SpecialTokens(
        named={"bos_token": text, "eos_token": text}, bos=end_of_document, eos=end_of_document, stops=(end_of_document,)
    )
