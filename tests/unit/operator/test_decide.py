"""What is decided about a document, told as stories: something happens to it, and so it is said and done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kindling_operator.moments import stamp

Make = Callable[..., Any]
Story = Callable[[Any], None]


def events(cluster: Any) -> list[str]:
    return [event.reason for event in cluster.events]


def test_a_run_is_told_from_its_first_word_to_its_last(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.wait(10)
    run.says(30, saved=20, message="training")
    run.reconcile()
    assert (run.status["phase"], run.status["progress"]["percent"], run.status["checkpoint"]["step"]) == (
        "Running", 30.0, 20,
    )  # fmt: skip
    run.wait(10)
    run.succeeds()
    run.reconcile()
    assert run.status["phase"] == "Succeeded"
    assert run.status["result"]["uri"] == "s3://llm/models/1"
    assert run.status["progress"]["step"] == run.status["result"]["steps"] == 100
    assert run.status["completionTime"] == stamp(run.now)
    assert events(run) == ["Accepted", "AttemptStarted", "Checkpointed", "Succeeded"]
    assert run.made == ["tiny-ptr-uid-0-1"]


def test_a_run_that_ends_worse_than_it_was_says_so(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.succeeds({"divergence": {"best": 2.5, "step": 40, "last": 72.0}})
    run.reconcile()
    assert run.status["phase"] == "Succeeded"
    (told,) = [one for one in run.status["conditions"] if one["type"] == "Diverged"]
    assert (told["status"], told["reason"]) == ("True", "LossRose")
    assert told["message"].startswith(
        "The training loss ended at 72.000, and was 2.500 at step 40: the run has diverged."
    )
    assert "LossRose" in events(run)


def test_a_status_that_was_lost_does_not_bring_back_old_numbers(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.fails(0, signal="SIGKILL")
    run.reconcile()
    run.resource["status"] = {}
    run.reconcile()
    assert (run.status["attempt"], run.made) == (2, ["tiny-ptr-uid-0-1", "tiny-ptr-uid-0-2"])


def test_children_of_an_earlier_document_of_the_same_name_are_not_this_ones(cluster: Make) -> None:
    run = cluster()
    run.run()
    run.resource["metadata"]["uid"] = "uid-new"
    run.resource["status"] = {}
    assert run.decide().status["attempt"] == 1
    assert run.decide().delete == ()
