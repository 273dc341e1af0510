"""What earlier attempts have left: gone where it is still at work, kept for its logs where it was the last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_a_lost_node_is_not_waited_for_and_the_job_on_it_goes(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.loses(1, grace=75)
    run.reconcile()
    assert run.made == ["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"]
    jobs = [key.name for key in run.objects if key.kind == "Job"]
    assert jobs == ["tiny-ptr-uid-0-2"]
    assert {key.name for key in run.objects} == {"tiny-ptr-uid-0-2"}, "nothing of the first attempt is left"


def test_the_last_failed_job_stays_for_its_logs_and_older_ones_go(cluster: Make) -> None:
    run = cluster()
    run.run()
    for _ in range(2):
        run.says(int(run.now.timestamp()), saved=int(run.now.timestamp()))
        run.reconcile()
        run.fails(1, signal="SIGKILL")
        run.job_ends()
        run.reconcile()
        run.schedule()
        run.wait(1)
        run.reconcile()
    assert [key.name for key in run.objects if key.kind == "Job"] == ["tiny-ptr-uid-0-2", "tiny-ptr-uid-0-3"]
