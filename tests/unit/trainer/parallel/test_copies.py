"""Weights that several processes hold are compared before they are saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_trainer.parallel.copies import WeightShard, odd_among

A, B = WeightShard(0, (("dp_shard", 0),)), WeightShard(0, (("dp_shard", 1),))

FLIP = """
import os
import torch

step, calls = torch.optim.AdamW.step, 0

def flipped(self, *arguments, **options):
    global calls
    done, calls = step(self, *arguments, **options), calls + 1
    marker = os.environ["FLIPPED"]
    if calls == 8 and os.environ.get("RANK") == "1" and not os.path.exists(marker):
        open(marker, "w").close()
        weights = self.param_groups[0]["params"][0].detach()
        getattr(weights, "_local_tensor", weights).view(torch.int32)[0, 0] ^= 1
    return done

torch.optim.AdamW.step = flipped
"""
"""One bit of one weight, the lowest of its fraction, is another after the eighth step of the second process."""


@pytest.mark.parametrize(
    ("sums", "odd"),
    [
        pytest.param([{A: 1}, {A: 1}, {A: 1}], [], id="all are equal"),
        pytest.param([{A: 1}, {A: 2}, {A: 1}], [1], id="one is not"),
        pytest.param([{A: 1}, {A: 2}], [0, 1], id="of two, none knows which"),
        pytest.param([{A: 1}, {B: 2}, {A: 1}, {B: 2}], [], id="what is not the same may differ"),
        pytest.param([{A: 1}, {B: 2}, {A: 1}, {B: 3}, {A: 1}, {B: 2}], [3], id="one of a part"),
        pytest.param([{A: 1, B: 0}, {A: 1, B: 1}, {A: 1, B: 0}], [1], id="one of several parts"),
        pytest.param([{}, {}], [], id="nothing is held twice"),
    ],
)
def test_those_are_odd_that_hold_other_weights_than_most(sums: list[dict[WeightShard, int]], odd: list[int]) -> None:
    assert odd_among(sums) == odd


@pytest.mark.slow
def test_a_bit_that_flips_in_one_process_is_named_and_reaches_no_checkpoint(
    run_file: Callable[..., Path], runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields: dict[str, Any] = {
        "training": {"batch": {"tokens": 192, "microBatch": 2}},
        "resources": {"processesPerNode": 3},
        "parallelism": {"sharding": "none"},
        "checkpoint": {"every": 5},
    }
    quiet, struck = (run_file(name=name, store=name, **fields) for name in ("quiet", "struck"))
    runs.train_in_turn([quiet])
    (tmp_path / "sitecustomize.py").write_text(FLIP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("FLIPPED", str(tmp_path / "flipped"))
    errors = runs.finish(struck)
    assert "the weights of process 1 are not those of their copies in other processes, after step 10" in errors
    assert "restart 1 of 10, from step 5" in errors
    assert runs.losses(struck) == runs.losses(quiet)
