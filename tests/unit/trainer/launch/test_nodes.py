"""A run over two machines: two launchers, which share nothing but the network and the store."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from torch.distributed import TCPStore

from kindling_api.bounds import SAVE_SECONDS
from kindling_api.errors import ConflictError, DataError, RefusedError, SpecError, UnreachableError, WithdrawnError
from kindling_api.v1alpha1.products import ModelManifest
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.status import is_secondary
from kindling_runtime.failure import LostContactError, describe_rank
from kindling_storage.commit import read_manifest
from kindling_trainer.checkpoint.folders import folders
from kindling_trainer.launch.node import NODE_VARIABLE, one_of_nodes
from kindling_trainer.parallel import rendezvous
from kindling_trainer.parallel.rendezvous import await_master, meet

RunFactory = Callable[..., Path]
TWO_NODES = {"resources": {"nodes": 2}, "parallelism": {"tensor": 2}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_run_whose_process_is_killed_ends_everywhere_and_goes_on_as_if_nothing_had_been(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any], step_reached: Any
) -> None:
    recipe = {"training": {"steps": 60, "batch": {"tokens": 128}}, **TWO_NODES}
    undisturbed = run_file(name="undisturbed", **recipe)
    disturbed = run_file(name="disturbed", restart={"maxRestarts": 0}, **recipe)
    words = pods(undisturbed).start(0, 1).end(0, 0)
    assert words[0].result is not None and words[1].result is None

    first = pods(disturbed).start(0, 1)
    first.wait_for(step_reached(12))
    os.kill(first.rank(runs, 1), signal.SIGKILL)
    seen = [word.failure for word in first.end(1, 1)]
    assert [(failure.reason, failure.rank, failure.signal) for failure in seen] == [
        ("RankFailed", 0, None), ("RankFailed", 1, "SIGKILL"),
    ]  # fmt: skip
    assert [is_secondary(failure) for failure in seen] == [True, False]
    assert seen[0].message.startswith("lost contact with other processes of the run")

    pods(disturbed, attempt=2).start(0, 1).end(0, 0)
    assert {folder.attempt for folder in folders(runs.store(disturbed))} <= {1, 2}

    in_place = run_file(name="in-place", **recipe)
    second = pods(in_place).start(0, 1)
    second.wait_for(step_reached(12))
    os.kill(second.rank(runs, 1), signal.SIGKILL)
    told = second.wait_for(lambda progress: progress.restarts == 1)
    assert told.last_failure is not None
    assert (told.last_failure.rank, told.last_failure.signal) == (1, "SIGKILL")
    assert [word.restarts for word in second.end(0, 0)] == [1, 0], "the same launchers, and so the same pods"

    assert runs.losses(disturbed) == runs.losses(in_place) == runs.losses(undisturbed)
    models = [read_manifest(runs.store(run), ModelManifest) for run in (disturbed, in_place, undisturbed)]
    assert models[0].files == models[1].files == models[2].files, "bit for bit"

    again = [pods(undisturbed, attempt=2).start(node).end(0)[0] for node in (1, 0)]  # neither waits for the other
    assert again[1].result == words[0].result, "a finished run ends at once"
    assert again[0].message == "node 1 of 2 has done its part"


@pytest.mark.slow
def test_a_newer_attempt_takes_over_from_one_that_still_trains(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any], step_reached: Any
) -> None:
    run = run_file(name="zombie", training={"steps": 3000, "batch": {"tokens": 128}}, **TWO_NODES)
    older = pods(run).start(0, 1)
    older.wait_for(step_reached(3))
    newer = pods(run, attempt=2).start(0, 1)
    newer.wait_for(step_reached(10))
    words = older.end(2, 1)
    assert words[0].failure is not None and "allowed: the lock file that this process made" in words[0].message
    for launcher in newer.launchers.values():
        launcher.terminate()
    newer.end(143, 143)


@pytest.mark.slow
def test_nodes_that_come_late_are_waited_for_and_one_that_is_asked_to_leave_takes_all_with_it(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any], step_reached: Any
) -> None:
    run = run_file(name="late", training={"steps": 2000, "batch": {"tokens": 128}}, **TWO_NODES)
    attempt = pods(run).start(0)
    waiting = attempt.wait_for(lambda progress: progress.message.startswith("waiting for other nodes"))
    assert waiting.message == "waiting for other nodes: 1 of 2 processes are here"
    attempt.start(1).wait_for(step_reached(7))
    attempt.launchers[1].terminate()
    words = attempt.end(143, 143)
    assert {word.failure.reason for word in words if word.failure is not None} == {"SuspendedByUser"}
    steps = len(runs.losses(run))
    saved = max(folder.step for folder, committed in folders(runs.store(run)).items() if committed)
    assert steps == saved >= 7, "all stopped after the same step, and saved it"


@pytest.mark.slow
def test_a_node_that_waits_for_a_lost_one_leaves_soon_when_it_is_asked_to(
    run_file: RunFactory, runs: Any, pods: Callable[..., Any], step_reached: Any
) -> None:
    run = run_file(name="endless", training={"steps": 100_000, "batch": {"tokens": 128}}, **TWO_NODES)
    attempt = pods(run).start(0, 1)
    attempt.wait_for(step_reached(20))
    os.kill(lost := attempt.rank(runs, 1), signal.SIGSTOP)  # as without power: its connections stay open, and silent
    attempt.launchers[0].terminate()
    asked = time.monotonic()
    attempt.launchers[0].wait(timeout=60)
    assert time.monotonic() - asked < SAVE_SECONDS / 2
    os.kill(lost, signal.SIGKILL)


@pytest.mark.parametrize(
    ("nodes", "index", "message"),
    [
        (3, "0", "--nodes: found 3; allowed: 2, as in the run. "),
        (2, None, "JOB_COMPLETION_INDEX: found nothing; allowed: 0 to 1. "),
        (2, "2", "JOB_COMPLETION_INDEX: found 2; allowed: 0 to 1. "),
        (2, "-1", "JOB_COMPLETION_INDEX: found -1; allowed: 0 to 1. "),
    ],
    ids=["another number of nodes", "no index", "an index too large", "a negative index"],
)
def test_a_node_that_has_no_place_is_refused(nodes: int, index: str | None, message: str) -> None:
    resources = TrainingResources(nodes=2)
    with pytest.raises(SpecError) as raised:
        one_of_nodes(nodes, "first", resources, {} if index is None else {NODE_VARIABLE: index})
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("master", "cpu", "port", "threads"),
    [("first.run", "64", "29500", None), ("first.run:1234", "500m", "1234", "1")],
    ids=["in a pod", "with a port, on half a core"],
)
def test_a_process_is_told_its_place_among_all(
    monkeypatch: pytest.MonkeyPatch, master: str, cpu: str, port: str, threads: str | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    resources = TrainingResources(nodes=3, processes_per_node=4, cpu=cpu)
    place = one_of_nodes(3, master, resources, {NODE_VARIABLE: "2"})
    told = place.environment(1)
    assert [told[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")] == ["9", "1", "12", "4"]
    assert (told["MASTER_ADDR"], told["MASTER_PORT"]) == ("first.run", port)
    assert threads is None or told["OMP_NUM_THREADS"] == threads
    assert not place.leads


def test_a_first_process_that_does_not_come_is_named() -> None:
    with pytest.raises(LostContactError, match=r"at 127\.0\.0\.1:1, did not answer for 0 s \(.*refused.*\)"):
        await_master("127.0.0.1", 1, limit=0.3)
    with pytest.raises(LostContactError, match=r"at nowhere\.invalid:1, .* \(its name does not resolve\)"):
        await_master("nowhere.invalid", 1, limit=0.3)


def test_nobody_joins_the_first_process_of_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "CONNECT_SECONDS", 0.2)
    soon = timedelta(seconds=60)
    first = TCPStore("127.0.0.1", free_port(), 2, is_master=True, timeout=soon, wait_for_workers=False)
    with pytest.raises(LostContactError, match="there is the first process of something else, not of mine"):
        meet("127.0.0.1", first.port, 2, "mine", limit=0.5)
    first.set("kindling/whose", "another's")
    with pytest.raises(LostContactError, match="there is the first process of another's, not of mine"):
        meet("127.0.0.1", first.port, 2, "mine", limit=0.5)
    assert first.add("kindling/here", 0) == 0, "it was not counted there"
    with ThreadPoolExecutor() as pool:  # its own comes to be there meanwhile
        met = pool.submit(meet, "127.0.0.1", first.port, 2, "mine")
        time.sleep(0.5)
        first.set("kindling/whose", "mine")
        assert met.result(timeout=30).get("kindling/whose") == b"mine"


@pytest.mark.parametrize(
    ("error", "reason", "code", "secondary"),
    [
        (
            RuntimeError("[/pytorch/gloo/pair.cc:534] Connection closed by peer [10.0.0.7]:1234"),
            "RankFailed",
            None,
            True,
        ),
        (LostContactError("nobody came"), "RankFailed", None, True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), "InternalError", 1, False),
        (UnreachableError("bucket b: found no answer"), "StorageUnreachable", 1, False),
        (RefusedError("bucket b: found AccessDenied"), "UserError", 2, False),
        (WithdrawnError("bucket b: found ExpiredToken"), "StorageUnreachable", 1, False),
        (DataError("spec.dataset: found nothing"), "UserError", 2, False),
        (ConflictError("held by process 7 on another machine"), "HeldElsewhere", 2, False),
        (MemoryError(), "OutOfMemory", 1, False),
        (OSError("connection refused"), "InternalError", 1, False),
    ],
    ids=[
        "gloo",
        "rendezvous",
        "shapes",
        "store",
        "a wrong key",
        "an old key",
        "data",
        "another run",
        "memory",
        "another connection",
    ],
)
def test_who_lost_contact_does_not_claim_to_know_the_cause(
    error: Exception, reason: str, code: int | None, secondary: bool
) -> None:
    failure = describe_rank(error, 3, 1)
    assert (failure.reason, failure.exit_code, is_secondary(failure)) == (reason, code, secondary)
    assert failure.refused is (True if isinstance(error, RefusedError | WithdrawnError) else None)
