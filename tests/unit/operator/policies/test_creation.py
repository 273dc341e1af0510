"""The objects of an attempt are made once, after its number is in the status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_the_number_of_an_attempt_is_written_before_anything_of_it_is_made(cluster: Make) -> None:
    run = cluster()
    first = run.decide()
    assert (first.status["attempt"], first.create, first.apply, first.requeue_after) == (1, (), (), 0)
    run.apply(first)
    second = run.decide()
    assert [item["kind"] for item in (*second.apply, *second.create)] == [
        "Service",
        "NetworkPolicy",
        "ConfigMap",
        "Job",
    ]
    assert second.status["attempt"] == 1


def test_a_job_that_somebody_deletes_is_replaced_at_no_charge(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.delete(run.job_key)
    run.reconcile()
    assert (run.made, run.status["restarts"], run.status["attempts"][0]["reason"]) == (
        ["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"], 0, "Evicted",
    )  # fmt: skip
