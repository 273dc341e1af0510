"""As `train_in_turn.py`, in which a step that read the poison leaves weights that are no numbers.

With DIE=before or DIE=after, it ends at once when the run is first about to go back to a checkpoint, or has done so.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import train_in_turn
from train_with_poison import IN_A_ROW, TOKEN, _loss

from kindling_trainer import train
from kindling_trainer.loop.pretrain import Pretraining
from kindling_trainer.loop.skipping import is_in_vain
from kindling_trainer.loop.step import Stepper

_take, _heal = Stepper.take, train.heal
_seen: list[bool] = []


def seeing_loss(self: Pretraining, batch: Any) -> tuple[Tensor, Any]:
    _seen.append(bool(((batch[0] == TOKEN).sum(dim=1) >= IN_A_ROW).any()))
    return _loss(self, batch)


def damaging_take(self: Stepper, *given: Any) -> Any:
    _seen.clear()
    taken = _take(self, *given)
    if any(self.ranks.largest(any(_seen))):
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.mul_(float("nan"))
    return taken


def dying_heal(setup: Any, finished: int, *given: Any) -> Any:
    is_rollback = is_in_vain(setup, finished)
    if is_rollback and os.environ.get("DIE") == "before":
        os._exit(9)
    skipped = _heal(setup, finished, *given)
    if is_rollback and os.environ.get("DIE") == "after":
        assert skipped.rolled_back_to is not None
        os._exit(9)
    return skipped


Pretraining.loss = seeing_loss  # type: ignore[method-assign]
Stepper.take = damaging_take  # type: ignore[method-assign]
train.heal = dying_heal

if __name__ == "__main__":
    sys.exit(train_in_turn.main(sys.argv[1:]))
