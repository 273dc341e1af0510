"""How the processes that run tests on one cluster share what they need, and keep out of each other's way."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from kubenode import processes
from kubenode.processes import ClusterError
from kubenode.shared import shared, turn


@pytest.fixture(autouse=True)
def _locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CACHE", tmp_path)


class Asked:
    """A test that asks for its turn, and runs until it is told to end."""

    def __init__(self, *, serial: bool) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, args=(serial,), daemon=True)
        self._thread.start()

    def _run(self, serial: bool) -> None:
        with turn(serial=serial):
            self.begun.set()
            self.end.wait(30)

    def runs(self, seconds: float = 10) -> bool:
        return self.begun.wait(seconds)

    def finish(self) -> None:
        self.end.set()
        self._thread.join(30)


def test_tests_run_beside_each_other() -> None:
    tests = [Asked(serial=False) for _ in range(3)]
    assert all(test.runs() for test in tests)
    for test in tests:
        test.finish()


def test_a_serial_test_waits_for_those_that_run_and_no_other_begins_meanwhile() -> None:
    first = Asked(serial=False)
    assert first.runs()
    serial = Asked(serial=True)
    time.sleep(0.2)  # it asks before the next one does
    later = Asked(serial=False)
    assert not serial.runs(0.3) and not later.runs(0.3)
    first.finish()
    assert serial.runs() and not later.runs(0.3)
    serial.finish()
    assert later.runs()
    later.finish()


def test_what_is_shared_is_made_once_and_ended_by_the_last(tmp_path: Path) -> None:
    done: list[str] = []

    def make() -> str:
        done.append("make")
        return "bucket"

    one, two = (shared(tmp_path, "kindling", make, lambda found: done.append(f"end {found}")) for _ in range(2))
    assert (one.__enter__(), two.__enter__()) == ("bucket", "bucket")
    one.__exit__(None, None, None)
    assert done == ["make"]
    two.__exit__(None, None, None)
    assert done == ["make", "end bucket"]


def test_what_could_not_be_made_is_tried_again_by_the_next(tmp_path: Path) -> None:
    def fail() -> str:
        raise ClusterError("no room")

    with pytest.raises(ClusterError, match="no room"), shared(tmp_path, "kindling", fail, print):
        pass
    with shared(tmp_path, "kindling", lambda: "made", print) as found:
        assert found == "made"
