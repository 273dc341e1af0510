"""What goes wrong while a run trains, done to real processes: hangs, full disks."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kindling_api.v1alpha1.storage import StorageSpec
from kindling_trainer.checkpoint.folders import newest_whole

pytestmark = pytest.mark.slow
RunFactory = Callable[..., Path]
TINY = {"architecture": "llama", "heads": 4, "kvHeads": 2}
LONG = {"steps": 3000, "batch": {"tokens": 128}}


def stop_one(run_file: RunFactory, runs: Any, rank: int, **restart: Any) -> tuple[Path, subprocess.Popen[str]]:
    """A run of two processes, one of which stands still after a few steps."""
    run = run_file(
        training=LONG,
        resources={"processesPerNode": 2},
        restart={"hangTimeout": "10s", **restart},
        checkpoint={"every": 5},
    )
    process = runs.start(run)
    runs.wait_for_step(run, 12)
    os.kill(runs.children(process)[rank], signal.SIGSTOP)
    return run, process


def test_a_run_that_hangs_is_started_again_and_names_the_process(run_file: RunFactory, runs: Any) -> None:
    run, process = stop_one(run_file, runs, rank=1)
    before = runs.children(process)
    until = time.monotonic() + 300
    while set(runs.children(process)) & set(before):
        assert time.monotonic() < until, "the hung processes were not replaced"
        time.sleep(0.2)
    steps = len(runs.losses(run))
    runs.wait_for_step(run, steps + 20)
    process.terminate()
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 128 + signal.SIGTERM
    assert "no step for 10 seconds: process 1 is stopped; restart 1 of 10, from step" in errors
    assert "kindling_trainer/train.py" in errors, "the others have said where they wait"


def test_a_run_that_hangs_and_may_not_start_again_fails_as_hung(run_file: RunFactory, runs: Any) -> None:
    run, process = stop_one(run_file, runs, rank=0, maxRestarts=0)
    _, errors = process.communicate(timeout=500)
    failure = runs.last_word(run).failure
    assert process.returncode == 1, errors
    assert (failure.reason, failure.rank) == ("Hung", 0)
    assert failure.message.startswith(
        "no step for 10 seconds: process 0 is stopped; restart.maxRestarts is reached. The state after step "
    )


def test_a_run_that_loses_its_place_to_another_ends_at_once(run_file: RunFactory, runs: Any) -> None:
    run = run_file(training=LONG)
    process = runs.start(run)
    runs.wait_for_step(run, 3)
    children = runs.children(process)
    runs.store(run).delete("lock")
    _, errors = process.communicate(timeout=500)
    assert process.returncode == 2 and "allowed: the lock file that this process made" in errors
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for one checkpoint, and not for two."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_older_checkpoint_and_the_run_goes_on_once_there_is_room(
    run_file: RunFactory, runs: Any, small_disk: Path
) -> None:
    run = run_file(store=StorageSpec(uri=small_disk.as_uri()), model={**TINY, "width": 64}, checkpoint={"every": 8})
    errors = runs.finish(run, code=2)
    store = runs.store(run)
    folder = small_disk / "models" / store.uri.rpartition("/")[2] / "checkpoints" / "step-00000016-a1"
    assert f"{folder}: found no space left on device while writing part-00000.safetensors" in errors
    assert (
        "To fix it: free some space, or a quota, or use a folder on another disk, then run the same command" in errors
    )
    assert runs.last_word(run).failure.reason == "UserError"
    found = newest_whole(store)
    assert found is not None and found[0].step == 8
    assert not list(small_disk.rglob(".kindling-tmp-*"))

    subprocess.run(["mount", "-o", "remount,size=32m", str(small_disk)], check=True)
    assert "continues from checkpoint step-00000008-a1" in runs.finish(run)
    assert [row["step"] for row in runs.rows(run) if "loss" in row] == list(range(1, 21))
