"""What a run's process tells, in the status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def test_figures_that_are_none_do_not_reach_the_api_server(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(3, training={"stage": "training", "step": 3, "loss": float("nan"), "tokensPerSecond": float("inf")})
    run.reconcile()
    assert "loss" not in run.status["progress"]


def test_progress_that_says_the_same_changes_nothing(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.says(3, training={"stage": "training", "step": 3, "goodput": 0.9})
    run.reconcile()
    before = run.status
    run.wait(5)
    run.says(3, training={"stage": "training", "step": 3, "goodput": 0.9})
    assert run.decide().status == before


def test_goodput_counts_over_attempts_what_was_lost_between_and_behind(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.wait(100)
    run.says(50, saved=25, training={"stage": "training", "step": 50, "goodput": 1.0})
    run.reconcile()
    assert run.status["progress"]["goodput"] == 1.0
    run.fails(0, signal="SIGKILL")
    run.reconcile()
    assert run.status["attempts"][0]["productiveSeconds"] == 50.0
    run.schedule()
    run.reconcile()
    run.wait(100)
    run.says(75, saved=50, training={"stage": "training", "step": 75, "goodput": 1.0})
    run.reconcile()
    assert run.status["progress"]["goodput"] == 0.75


def test_a_build_that_says_nothing_of_its_documents_keeps_what_it_said(cluster: Make) -> None:
    build = cluster("DatasetBuild")
    build.run()
    build.says(0, dataset={"stage": "reading", "percent": 20, "documents": 7})
    build.reconcile()
    assert build.status["progress"]["documents"] == 7
    before = build.status
    build.wait(5)
    build.says(0)
    assert build.decide().status == before


def test_restarts_in_the_same_pods_count_as_others_do_and_are_told_once(cluster: Make) -> None:
    run = cluster()
    run.run()
    failure = {"reason": "RankFailed", "message": "process 1 was ended by SIGKILL", "rank": 1}
    for reported, counted in ((1, 1), (1, 1), (2, 2)):
        run.says(50, saved=40, restarts=reported, lastFailure=failure)
        run.reconcile()
        assert (run.status["restarts"], run.status["attempts"][0]["restarts"]) == (counted, counted)
    told = [event.message for event in run.events if event.reason == "RestartedInPlace"]
    assert told == ["process 1 was ended by SIGKILL. Its processes start again in the same pods from step 40."] * 2
    assert run.status["lastFailure"]["rank"] == 1 and run.status["attempt"] == 1
    run.fails(0, signal="SIGKILL")
    run.reconcile()
    run.schedule()
    run.reconcile()
    assert (run.status["attempt"], run.status["restarts"]) == (2, 3), "which are all of the three allowed"
