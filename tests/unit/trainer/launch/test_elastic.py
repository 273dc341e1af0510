"""An elastic run: over how many machines it goes, and that its curve is that of a run that was not disturbed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.runfile import Progress
from kindling_trainer.launch.elastic import first_size, largest, wider_size

SIZES = (2, 4, 8)


@pytest.mark.parametrize(
    ("present", "quiet", "size"),
    [
        (8, 0.0, 8),
        (9, 0.0, 8),
        (7, 0.0, None),
        (7, 10.0, 4),
        (2, 10.0, 2),
        (1, 1000.0, None),
    ],
    ids=["all are here", "more than all", "others may come", "nobody else came", "just enough", "too few"],
)
def test_a_run_begins_with_all_nodes_or_with_those_that_came_in_time(
    present: int, quiet: float, size: int | None
) -> None:
    assert first_size(SIZES, present, quiet) == size


def test_it_goes_on_over_the_largest_size_that_is_left() -> None:
    assert [largest(SIZES, present) for present in range(10)] == [None, None, 2, 2, 4, 4, 4, 4, 8, 8]


@pytest.mark.parametrize(
    ("nodes", "present", "quiet", "remaining", "size"),
    [
        (2, 4, 10.0, 1000.0, 4),
        (2, 3, 10.0, 1000.0, None),
        (2, 4, 9.0, 1000.0, None),
        (4, 8, 0.0, 1000.0, 8),
        (2, 4, 10.0, 119.0, None),
        (2, 4, 10.0, 121.0, 4),
        (2, 4, 10.0, None, None),
        (4, 4, 10.0, 1000.0, None),
    ],
    ids=[
        "twice as many", "no size is between", "others may come", "all have come", "too little is left",
        "just enough is left", "nobody knows what is left", "no more than before",
    ],
)  # fmt: skip
def test_it_grows_where_that_saves_twice_what_it_costs(
    nodes: int, present: int, quiet: float, remaining: float | None, size: int | None
) -> None:
    assert wider_size(SIZES, nodes, present, quiet=quiet, remaining=remaining, cost=30.0) == size


RunFactory = Callable[..., Path]

EAGER = """
import sys
from kindling_trainer import __main__
from kindling_trainer.launch import elastic
elastic.START_WAIT_SECONDS, elastic.GAIN_FACTOR = 1.0, 0.0
sys.exit(__main__.main(sys.argv[1:]))
"""
"""A launcher that waits for others a second, and grows whatever it costs."""


def over(nodes: int, step: int) -> Callable[[Progress], bool]:
    def reached(progress: Progress) -> bool:
        return progress.nodes == nodes and progress.training is not None and progress.training.step >= step

    return reached


@pytest.mark.slow
def test_a_run_that_shrinks_has_the_curve_of_one_that_did_not(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any]
) -> None:
    recipe = {"training": {"steps": 150, "batch": {"tokens": 384, "microBatch": 4}}, "checkpoint": {"every": 25}}
    undisturbed = run_file(name="undisturbed", **recipe)
    runs.finish(undisturbed)
    run = run_file(name="elastic", resources={"nodes": 3, "minNodes": 1}, **recipe)

    launchers = pods(run, nodes=3, launcher=("-c", EAGER)).start(0, 1, 2)
    launchers.wait_for(over(3, 30))
    launchers.launchers[1].kill()
    launchers.launchers[1].wait()
    launchers.wait_for(over(2, 30))
    launchers.launchers[2].terminate()  # as where its node is drained: the run saves first
    words = launchers.end(0, -9, 143)

    resizes = words[0].resizes or []
    assert [(resize.before, resize.nodes) for resize in resizes] == [(3, 2), (2, 1)]
    assert [resize.cause for resize in resizes] == ["node 1 is gone", "node 2 is gone"]
    assert 0 <= resizes[0].lost_steps < 50 and resizes[1].lost_steps == 0
    assert words[0].restarts == 0, "what is gone is no failure"
    assert_same_curve(runs, undisturbed, run)


def assert_same_curve(runs: Any, undisturbed: Path, run: Path) -> None:
    expected, found = runs.losses(undisturbed), runs.losses(run)
    assert len(found) == len(expected) and max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-5


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_that_shrinks_and_grows_has_the_curve_of_one_that_did_not(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any]
) -> None:
    recipe = {"training": {"steps": 400, "batch": {"tokens": 1536, "microBatch": 4}}, "checkpoint": {"every": 25}}
    undisturbed = run_file(name="undisturbed", **recipe)
    runs.finish(undisturbed)
    run = run_file(name="elastic", resources={"nodes": 3, "minNodes": 1}, **recipe)

    launchers = pods(run, nodes=3, launcher=("-c", EAGER))
    launchers.start(0, 1).wait_for(over(2, 30))  # node 2 has not come
    launchers.launchers[1].kill()
    launchers.launchers[1].wait()
    launchers.wait_for(over(1, 30))
    launchers.start(1, 2).wait_for(over(3, 30))
    launchers.launchers[2].terminate()  # as where its node is drained: the run saves first
    launchers.wait_for(over(2, 30))
    words = launchers.end(0, 0, 143)

    resizes = words[0].resizes or []
    assert [(resize.before, resize.nodes) for resize in resizes] == [(2, 1), (1, 3), (3, 2)]
    assert [resize.cause for resize in resizes] == ["node 1 is gone", "nodes 1, 2 have come", "node 2 is gone"]
    assert [resize.lost_steps for resize in resizes[1:]] == [0, 0], "they were saved first"
    assert 0 <= resizes[0].lost_steps < 50 and words[0].restarts == 0, "what is gone is no failure"
    assert_same_curve(runs, undisturbed, run)


@pytest.mark.slow
def test_too_few_nodes_are_waited_for_and_a_killed_process_costs_none(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any]
) -> None:
    recipe = {"training": {"steps": 100_000, "batch": {"tokens": 192}}, "checkpoint": {"every": 50}}
    run = run_file(name="waiting", resources={"nodes": 4, "minNodes": 2}, parallelism={"tensor": 2}, **recipe)
    launchers = pods(run, nodes=4, launcher=("-c", EAGER)).start(0)
    told = launchers.wait_for(lambda progress: progress.trouble == "WaitingForNodes")
    assert told.nodes == 0 and told.message == "waiting for nodes: 1 of at least 2 is here"
    launchers.start(1, 2).wait_for(over(2, 30))
    os.kill(launchers.rank(runs, 0), signal.SIGKILL)
    told = launchers.wait_for(lambda progress: progress.restarts == 1)
    launchers.wait_for(over(2, 30))
    launchers.launchers[1].kill()  # node 2, which had no part, takes its place
    told = launchers.wait_for(lambda progress: bool(progress.resizes))
    launchers.launchers[0].terminate()
    assert launchers.launchers[0].wait(timeout=60) == 143
    assert launchers.launchers[2].wait(timeout=60) != 0, "it does not outlive the first one"
