"""A pod that is slow is named while the run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from throttling import throttled

RunFactory = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", [{}, pytest.param({"tensor": 2}, marks=pytest.mark.exhaustive)])
def test_a_slow_pod_is_named_and_named_no_longer_once_it_is_as_fast_as_others(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any], parallelism: dict[str, Any]
) -> None:
    run = run_file(
        training={"steps": 5000, "batch": {"tokens": 2048, "microBatch": 32}},
        model={"architecture": "llama", "heads": 4, "kvHeads": 2, "layers": 4, "width": 128},
        checkpoint={"every": 5000},
        evaluation={"every": 5000},
        resources={"nodes": 4},
        parallelism=parallelism,
    )
    document = json.loads(run.read_bytes())
    run.write_text(json.dumps({**document, "spec": {**document["spec"], "preflight": True}}))
    attempt = pods(run, nodes=4).start(0, 1, 2, 3)
    attempt.wait_for(lambda progress: progress.stragglers == [])
    assert "preflight: a multiplication takes " in attempt.run.with_suffix(".0.log").read_text()
    with throttled(attempt.rank(runs, 2)):
        slow = attempt.wait_for(lambda progress: progress.stragglers)
        assert [(one.rank, one.node) for one in slow.stragglers] == [(2, 2)]
    attempt.wait_for(lambda progress: progress.stragglers == [])
    attempt.kill()
