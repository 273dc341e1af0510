"""What has succeeded or failed stays so, and goes after its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


def test_a_finished_run_is_deleted_after_its_time_and_not_before(cluster: Make) -> None:
    run = cluster(ttlAfterFinished="1h")
    run.run()
    run.succeeds()
    assert run.reconcile().requeue_after == 3600
    run.wait(3599)
    run.reconcile()
    assert not run.gone
    run.wait(1)
    run.reconcile()
    assert run.gone


@pytest.mark.parametrize("finished", [True, False], ids=["succeeded", "failed"])
def test_what_is_final_stays_so_whatever_happens_to_its_job(cluster: Make, finished: bool) -> None:
    run = cluster()
    run.run()
    if finished:
        run.succeeds()
    else:
        run.fails(0, code=2, reason="UserError")
    run.reconcile()
    phase = run.status["phase"]
    run.delete(run.job_key)
    run.edit(suspend=True)
    run.reconcile()
    assert (run.status["phase"], len(run.made)) == (phase, 1)
