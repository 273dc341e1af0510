"""Conditions keep their times and their order, the phase is read off them, and no status brings a decision down."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from kindling_api.v1alpha1.status import PretrainRunStatus
from kindling_operator.conditions import phase_of, with_condition, with_kstatus
from kindling_operator.moments import moment, seconds_since, stamp

Make = Callable[..., Any]

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LATER = datetime(2026, 5, 1, 13, 0, tzinfo=UTC)


def test_the_time_of_a_transition_stays_until_the_status_changes() -> None:
    first = with_condition([], "Running", "False", "Starting", "a", now=NOON, generation=1)
    other = with_condition(first, "Queued", "False", "Admitted", "b", now=NOON, generation=1)
    same = with_condition(other, "Running", "False", "Unschedulable", "c", now=LATER, generation=2)
    assert [(one.type, one.reason, one.last_transition_time, one.observed_generation) for one in same] == [
        ("Running", "Unschedulable", stamp(NOON), 2),
        ("Queued", "Admitted", stamp(NOON), 1),
    ]
    changed = with_condition(same, "Running", "True", "Started", "d", now=LATER, generation=2)
    assert changed[0].last_transition_time == stamp(LATER)


def test_a_message_is_cut_to_what_the_schema_takes() -> None:
    (said,) = with_condition([], "Failed", "True", "UserError", 5000 * "x", now=NOON, generation=None)
    assert (len(said.message), said.message[-1]) == (4096, "…")


@pytest.mark.parametrize(
    ("conditions", "attempt", "phase"),
    [
        ([], 0, "Pending"),
        ([("Accepted", "False", "InvalidSpec")], 0, "Failed"),
        ([("Accepted", "False", "InvalidSpec"), ("Running", "True", "Started")], 1, "Running"),
        ([("DatasetReady", "False", "Building")], 0, "Waiting"),
        ([("Running", "False", "Starting")], 1, "Pending"),
        ([("Running", "False", "Starting"), ("Restarting", "True", "NodeLost")], 2, "Restarting"),
        ([("Running", "False", "QuotaExceeded"), ("Restarting", "True", "NodeLost")], 2, "Waiting"),
        ([("Queued", "True", "WaitingForAdmission"), ("Running", "False", "Starting")], 1, "Queued"),
        ([("Suspended", "True", "SuspendedByUser"), ("DatasetReady", "False", "Building")], 0, "Suspended"),
        ([("Running", "True", "StorageUnreachable")], 1, "Running"),
        ([("Running", "False", "Completed"), ("Succeeded", "True", "Completed")], 1, "Succeeded"),
        ([("Suspended", "False", "Resumed"), ("Failed", "True", "UserError")], 1, "Failed"),
    ],
)
def test_the_phase_is_one_word_for_all_conditions(
    conditions: list[tuple[Any, Any, Any]], attempt: int, phase: str
) -> None:
    status = PretrainRunStatus(attempt=attempt)
    for type_, truth, reason in conditions:
        said = with_condition(status.conditions, type_, truth, reason, "", now=NOON, generation=1)
        status = status.model_copy(update={"conditions": said})
    assert phase_of(status) == phase


def test_a_run_that_failed_is_stalled_with_the_same_words_until_it_goes_on() -> None:
    failed = with_condition([], "Failed", "True", "UserError", "a", now=NOON, generation=1)
    stalled = with_kstatus(PretrainRunStatus(conditions=failed), now=NOON, generation=1)
    assert [(one.type, one.status, one.reason, one.message) for one in stalled] == [
        ("Failed", "True", "UserError", "a"),
        ("Reconciling", "False", "Settled", "a"),
        ("Stalled", "True", "UserError", "a"),
    ]
    going = with_condition(stalled, "Failed", "False", "Resumed", "b", now=LATER, generation=1)
    running = with_condition(going, "Running", "True", "Started", "c", now=LATER, generation=1)
    assert [
        (one.type, one.status, one.reason, one.message)
        for one in with_kstatus(PretrainRunStatus(attempt=1, conditions=running), now=LATER, generation=1)
        if one.type in ("Reconciling", "Stalled")
    ] == [("Reconciling", "True", "Progressing", "c")]


@pytest.mark.parametrize(
    "status",
    [None, {"attempt": "x"}, {"attempt": 3}, {"attempts": [{}]}, {"conditions": [{"type": "Odd"}]}, {"new": 1}],
    ids=str,
)
def test_a_status_that_is_none_of_ours_is_begun_anew(cluster: Make, status: Any) -> None:
    run = cluster()
    run.resource["status"] = status
    run.reconcile()
    assert run.status["attempt"] == (3 if status == {"attempt": 3} else 1)
    assert run.made == [f"tiny-ptr-uid-0-{run.status['attempt']}"]


def test_an_alignment_run_lives_as_a_pretraining_run_does(cluster: Make) -> None:
    run = cluster("AlignmentRun")
    run.run()
    run.says(3, training={"stage": "training", "step": 3, "reward": 0.5})
    run.reconcile()
    assert (run.status["phase"], run.status["progress"]["reward"], run.said("BaseReady")) == (
        "Running", 0.5, ("True", "Ready"),
    )  # fmt: skip
    run.succeeds()
    run.reconcile()
    assert (run.status["phase"], run.status["result"]["evaluation"], run.made) == (
        "Succeeded",
        {},
        ["tiny-alr-uid-0-1"],
    )


def test_moments_are_read_as_they_are_written_and_nonsense_is_none() -> None:
    assert moment(stamp(NOON)) == NOON
    assert (moment("nonsense"), moment(None)) == (None, None)
    assert (seconds_since(stamp(NOON), LATER), seconds_since(stamp(LATER), NOON), seconds_since(None, NOON)) == (
        3600, 0, 0,
    )  # fmt: skip
