"""Bounds that programs share fit together: each waits longer, or holds more, than what it waits for, or holds."""

from __future__ import annotations

import pytest

from kindling_api import bounds


@pytest.mark.parametrize(
    ("less", "more", "reason"),
    [
        ("SAVE_SECONDS", "POD_GRACE_SECONDS", "a pod outlives the processes that its launcher ends"),
        ("LAUNCHER_SETTLE_SECONDS", "OPERATOR_SETTLE_SECONDS", "the operator waits for what launchers say"),
        ("ATTEMPT_MESSAGE", "FAILURE_MESSAGE", "the history of attempts is shorter than the newest failure"),
        ("PROGRESS_MESSAGE", "FINAL_PROGRESS_BYTES", "a last word holds its message, and the rest"),
        ("FAILURE_MESSAGE", "CONDITION_MESSAGE", "a condition says the failure, and what follows from it"),
        ("EVENT_MESSAGE", "FAILURE_MESSAGE", "an Event is the shorter one"),
    ],
)
def test_one_bound_leaves_room_for_the_other(less: str, more: str, reason: str) -> None:
    assert getattr(bounds, less) < getattr(bounds, more), reason


def test_kubernetes_holds_what_is_sent_to_it() -> None:
    assert bounds.EVENT_MESSAGE <= 1024  # events.k8s.io/v1 note
    assert bounds.FINAL_PROGRESS_BYTES <= 4096  # terminationMessagePath
    assert bounds.CONDITION_MESSAGE <= 32768  # metav1.Condition


@pytest.mark.parametrize(
    ("gigabytes", "measured", "seconds"),
    [
        pytest.param(0.0, None, 60, id="a small model has the least"),
        pytest.param(21.25, None, 560, id="one of seven billion parameters over four machines, by its size"),
        pytest.param(21.25, 12.3, 85, id="what was measured goes before the size"),
        pytest.param(800.0, None, 3600, id="nothing is waited for longer than an hour"),
    ],
)
def test_the_time_to_save_follows_the_checkpoint(gigabytes: float, measured: float | None, seconds: int) -> None:
    assert bounds.save_seconds(gigabytes * 1e9, measured) == seconds


def test_a_pod_has_time_to_say_what_became_of_its_processes() -> None:
    assert bounds.POD_GRACE_SECONDS - bounds.SAVE_SECONDS >= 2 * bounds.LAUNCHER_SETTLE_SECONDS


def test_the_operator_counts_a_run_as_hung_after_its_launcher() -> None:
    assert bounds.HANG_MARGIN_SECONDS > bounds.OPERATOR_SETTLE_SECONDS


@pytest.mark.parametrize(("text", "clipped"), [("", ""), ("abcd", "abcd"), ("abcde", "abc…")])
def test_what_is_too_long_says_so(text: str, clipped: str) -> None:
    assert bounds.clip(text, 4) == clipped
