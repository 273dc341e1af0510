"""What the model that training began with says of every answer: computed once, kept in the run's folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import torch
from safetensors.torch import load, save
from torch import Tensor

from kindling_api.base import key_of, short_key
from kindling_api.errors import IntegrityError, explain
from kindling_storage import ObjectStore
from kindling_trainer.align.preference.losses import PairValues
from kindling_trainer.checkpoint.folders import folders
from kindling_trainer.parallel.mesh import Ranks

log = logging.getLogger(__name__)

_NAME = "log_probabilities"

Scored = Iterable[tuple[Tensor, PairValues]]
"""Pairs' numbers [P], and the log-probabilities of their answers."""


class ReferenceCache:
    """Log-probabilities of both answers of all pairs; until they are known, nothing but `know` may be called."""

    def __init__(
        self, store: ObjectStore, of: Sequence[str], pairs: int, ranks: Ranks, *, base_stays: bool = False
    ) -> None:
        """Read them from the run's folder, `store`, where an earlier attempt has left them there.

        Args:
            of: what they depend on: model, data, precision.
            base_stays: whether the model can say them at any time, since what is trained can be switched off.

        Raises:
            IntegrityError: they are missing, and so is the model that could say them, for it has been trained since.
        """
        self._store, self._path, self._pairs, self._ranks = (
            store,
            f"reference-{short_key(key_of(list(of)))}.safetensors",
            pairs,
            ranks,
        )
        self._values: Tensor | None = None
        content = ranks.from_first(store.get(self._path) if ranks.leads and store.exists(self._path) else None)
        if content is not None:
            self._values = load(content)[_NAME].to(ranks.device)
        elif not base_stays and ranks.from_first(ranks.leads and any(folders(store).values())):
            raise IntegrityError(
                explain(
                    f"{store.uri}/{self._path}",
                    found="nothing, beside checkpoints of a later model",
                    allowed="the reference's log-probabilities, from before the first step",
                    remedy="delete the run's folder to begin anew",
                )
            )

    def compute(self, score: Callable[[], Scored]) -> None:
        """Have `score` go through all pairs, each process through its part, unless that has been done."""
        if self._values is not None:
            return
        values = torch.zeros(self._pairs, 2, dtype=torch.float64, device=self._ranks.device)
        for pairs, answers in score():
            values[pairs] = torch.stack(answers, dim=1).double()
        self._values = self._ranks.sum_over_batch(values)
        if self._ranks.leads:
            self._store.put(self._path, save({_NAME: self._values.cpu()}))
            log.info("the reference's log-probabilities of %s pairs are kept", f"{self._pairs:,}")

    def of(self, pairs: Tensor) -> PairValues:
        """The reference's log-probabilities of some pairs [P], in nats: [P] each, fp64."""
        assert self._values is not None, "the reference is known before it is asked"
        return PairValues(*self._values[pairs].unbind(1))
