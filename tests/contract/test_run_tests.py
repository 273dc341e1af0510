"""What `make test` runs while the test cluster starts, and what it says of what went wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

import run_tests
from run_tests import cluster_beside, run_halves


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is done with the cluster of this machine, which is off before, and can be had."""
    done: list[str] = []
    monkeypatch.setattr(run_tests.tools, "missing_requirement", lambda: None)
    monkeypatch.setattr(run_tests.lifecycle, "is_up", lambda: False)
    monkeypatch.setattr(run_tests.lifecycle, "down", lambda: done.append("down"))
    return done


def python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


@pytest.mark.parametrize(("first", "second", "code"), [(0, 0, 0), (1, 0, 1), (0, 2, 2), (1, 2, 1)])
def test_both_halves_run_whatever_the_first_comes_to(
    first: int, second: int, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    halves = [python(f"print('half', flush=True); exit({each})") for each in (first, second)]
    assert run_halves(halves, lambda: print("waited", flush=True)) == code
    assert capfd.readouterr().out.split() == ["half", "waited", "half"]


def test_a_cluster_that_was_off_is_started_meanwhile_and_taken_down(done: list[str]) -> None:
    with cluster_beside(python("")) as wait_for_cluster:
        assert wait_for_cluster() and not done
    assert done == ["down"]


def test_a_cluster_that_was_up_stays(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tests.lifecycle, "is_up", lambda: True)
    with cluster_beside(python("")) as wait_for_cluster:
        assert wait_for_cluster()
    assert not done


def test_a_start_that_fails_is_told_with_all_that_it_printed(
    done: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    failing = python("import sys; print('building'); sys.exit('no space left on device')")
    with cluster_beside(failing) as wait_for_cluster:
        assert not wait_for_cluster()
    said = capsys.readouterr().out
    assert "DID NOT START, with exit code 1" in said
    assert "building" in said and "no space left on device" in said


def test_a_start_that_is_not_waited_for_is_ended_before_the_cluster_is_taken_down(done: list[str]) -> None:
    with cluster_beside(python("import time; time.sleep(600)")):
        assert not done
    assert done == ["down"]


def test_where_no_cluster_can_be_had_none_is_started(done: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tests.tools, "missing_requirement", lambda: "a test cluster needs root")
    with cluster_beside(("no-such-program",)) as wait_for_cluster:
        assert not wait_for_cluster()
    assert not done
