"""Reads a checkpoint into a model and its optimizer, on whatever layout they are."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.checkpoint.state_dict_loader as dcp
from torch import Tensor, nn

from kindling_storage import ObjectStore
from kindling_trainer.checkpoint.parts import PartsReader
from kindling_trainer.models.initialize import plain_name
from kindling_trainer.optim.adamw import moments, trained_parameters

MODEL, OPTIMIZER = "model.", "optimizer."


def training_state(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name: `model.<parameter>` and `optimizer.<parameter>.<moment>`.

    What is frozen is left out. The tensors are the model's and the optimizer's own, so that loading into them changes
    both.
    """
    state = {MODEL + plain_name(name): parameter.detach() for name, parameter in trained_parameters(model)}
    return state | {OPTIMIZER + name: tensor for name, tensor in moments(model, optimizer).items()}


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters of a model, by the names that they have in a checkpoint."""
    return {MODEL + plain_name(name): parameter.detach() for name, parameter in model.named_parameters()}


def load(store: ObjectStore, state: dict[str, Tensor], group: dist.ProcessGroup | None) -> None:
    """Fill the tensors of `state` from the checkpoint in the folder `store`; all processes of `group` call it."""
    dcp.load(state, storage_reader=PartsReader(store), process_group=group, no_dist=group is None)
