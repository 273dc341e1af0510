"""One writer at a place, however the last one ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kindling_api.errors import ConflictError
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import ObjectStore
from kindling_storage.lock import confirm, lock

HOLD_FOREVER = """
import sys, time
from kindling_storage import open_store
from kindling_storage.lock import lock
with lock(open_store(sys.argv[1]), "lock"):
    print("held", flush=True)
    time.sleep(600)
"""


def holding_process(store: ObjectStore) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, "-c", HOLD_FOREVER, store.uri], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_place_is_held_by_one_and_then_by_the_next(folder_store: ObjectStore, tmp_path: Path) -> None:
    for _ in range(2):
        with lock(folder_store, "models/a/lock") as held:
            held.check()
    assert list(folder_store.list()) == []


def test_a_second_writer_is_told_who_the_first_is(folder_store: ObjectStore) -> None:
    with lock(folder_store, "lock"), pytest.raises(ConflictError) as raised, lock(folder_store, "lock"):
        pass
    message = str(raised.value)
    assert message.startswith(
        f"{folder_store.uri}: found held by process {os.getpid()} on {os.uname().nodename}, since "
    )
    assert message.endswith(
        "; allowed: one writer at a time. To fix it: wait until that run has ended, or stop it; "
        "what it finished is kept."
    )


def test_a_killed_holder_frees_the_place_at_once(folder_store: ObjectStore) -> None:
    process = holding_process(folder_store)
    with pytest.raises(ConflictError, match=f"process {process.pid} on"), lock(folder_store, "lock"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with lock(folder_store, "lock") as held:
        held.check()


def test_a_failure_inside_frees_the_place(folder_store: ObjectStore) -> None:
    with pytest.raises(ZeroDivisionError), lock(folder_store, "lock"):
        raise ZeroDivisionError
    with lock(folder_store, "lock"):
        pass


def test_a_lock_file_that_somebody_removed_is_noticed(folder_store: ObjectStore, tmp_path: Path) -> None:
    with lock(folder_store, "lock") as held:
        folder_store.delete("lock")
        with pytest.raises(ConflictError, match="found removed"):
            held.check()


def attempt(number: int, name: str = "books", uid: str | None = None) -> DatasetBuildFile:
    spec = DatasetBuildSpec.model_validate({"sources": [{"uri": "builtin:python-stdlib"}]}, strict=False)
    output = StorageSpec(uri="file:///unused")
    return DatasetBuildFile(name=name, uid=uid, attempt=number, key="sha256:" + "0" * 64, output=output, spec=spec)


def test_a_newer_attempt_takes_the_place_of_an_older_one_that_lives(folder_store: ObjectStore) -> None:
    with lock(folder_store, "lock", attempt(1)) as old:
        with lock(folder_store, "lock", attempt(2)) as new:
            with pytest.raises(ConflictError, match="found removed"):
                old.check()
            with pytest.raises(ConflictError, match="for attempt 2 at DatasetBuild/default/books"):
                confirm(folder_store, "lock", old.token)
            new.check()
            confirm(folder_store, "lock", new.token)
        with pytest.raises(ConflictError, match="held by nobody any more"):
            confirm(folder_store, "lock", new.token)


@pytest.mark.parametrize(
    "other",
    [attempt(2), attempt(1), attempt(3, "magazines"), attempt(3, uid="of another document of this name")],
    ids=["same", "older", "another", "another document's"],
)
def test_no_other_attempt_does(folder_store: ObjectStore, other: DatasetBuildFile) -> None:
    with lock(folder_store, "lock", attempt(2)) as held:
        with pytest.raises(ConflictError, match="for attempt 2 at"), lock(folder_store, "lock", other):
            pass
        held.check()


RACE = """
import sys, time
from kindling_storage import open_store
from kindling_storage.lock import lock
from kindling_api.errors import ConflictError
store, inside = open_store(sys.argv[1]), 0
end = time.monotonic() + 2
while time.monotonic() < end:
    try:
        with lock(store, "lock"):
            assert store.put_if_absent("inside", b""), "two were inside"
            store.delete("inside")
            inside += 1
    except ConflictError:
        pass
print(inside)
"""


@pytest.mark.slow
def test_no_two_processes_are_ever_inside(folder_store: ObjectStore) -> None:
    command = [sys.executable, "-c", RACE, folder_store.uri]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    entered = [int(racer.communicate(timeout=60)[0]) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0, 0]
    assert sum(entered) > 0
