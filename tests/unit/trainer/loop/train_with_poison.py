"""As `train_in_turn.py`, in which a micro-batch with a row of the poison's token has a loss that is no number."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
import train_in_turn

from kindling_trainer.loop.pretrain import Pretraining

TOKEN, IN_A_ROW = 63, 8

_loss = Pretraining.loss


def poisoned_loss(self: Pretraining, batch: Any) -> tuple[Tensor, Any]:
    loss, figures = _loss(self, batch)
    is_poisoned = ((batch[0] == TOKEN).sum(dim=1) >= IN_A_ROW).any()
    return (loss * float("nan") if is_poisoned else loss), figures


Pretraining.loss = poisoned_loss  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(train_in_turn.main(sys.argv[1:]))
