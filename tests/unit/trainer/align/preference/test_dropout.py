"""Answers are compared by a model without dropout, whatever its base was trained with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from prepared_alignment import uninterrupted

from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_storage import open_store
from kindling_trainer.align.method import prepare
from kindling_trainer.models.initialize import initialize
from kindling_trainer.parallel.mesh import join


@pytest.mark.parametrize("method", ["dpo", "reward"])
def test_a_pair_is_compared_without_dropout(
    method: str, base: Callable[..., str], alignment_file: Callable[..., Path]
) -> None:
    uri = base("gpt2")
    config = json.loads(open_store(uri).get("config.json"))
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5)
    open_store(uri).put("config.json", json.dumps(config | dropouts).encode())
    pairs = [{"prompt": "say", "chosen": "abcd"[n % 4] * 4, "rejected": "1234"[n // 4 % 4] * 4} for n in range(40)]
    run = read_run_file(alignment_file(base_uri=uri, records=pairs, method={method: {}}))
    assert isinstance(run, AlignmentRunFile)
    setup = prepare(run, join(run.spec.layout(), run.spec.resources))
    assert setup.shape.dropout == 0.5
    initialize(setup.model, 1)
    if method == "reward":
        torch.nn.init.normal_(setup.model.head.weight, generator=torch.Generator().manual_seed(1))
    local = setup.objective.local_batch(0, uninterrupted)
    losses = [sum(float(setup.objective.loss(batch)[0].detach()) for batch in local.micro_batches) for _ in range(2)]
    assert losses[0] == losses[1] > 0
    if method == "dpo":
        assert losses[0] / local.normaliser == pytest.approx(math.log(2), abs=1e-6), "of a model that is its reference"
