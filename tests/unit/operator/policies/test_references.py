"""A run waits for what other documents make, and keeps to what it found when it started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_api.references import Reference
from kindling_api.resolve import Finished
from kindling_operator.world import Referred

Make = Callable[..., Any]

WEB = Reference("DatasetBuild", "team", "web")
DATASET = Finished("s3://llm/datasets/web", "sha256:" + 64 * "1")
NAMED = {"dataset": {"name": "web"}}


@pytest.mark.parametrize(
    ("there", "reason", "words"),
    [
        ({}, "NotFound", "there is no DatasetBuild/web in this namespace. Create it"),
        ({WEB: Referred("Running")}, "Building", "Waits for DatasetBuild/web, which is Running"),
        ({WEB: Referred("Failed", message="no records.")}, "ReferenceFailed", "has failed: no records. Delete"),
    ],
)
def test_a_run_waits_for_what_it_refers_to_and_starts_by_itself(
    cluster: Make, there: dict[Reference, Referred], reason: str, words: str
) -> None:
    run = cluster(**NAMED)
    run.references = there
    run.reconcile()
    assert (run.status["phase"], run.said("DatasetReady")) == ("Waiting", ("False", reason))
    assert words in run.message("DatasetReady")
    run.references = {WEB: Referred("Succeeded", DATASET)}
    run.reconcile()
    assert run.said("DatasetReady") == ("True", "Ready")
    assert run.status["inputs"] == [{"field": "spec.dataset", "uri": DATASET.uri, "digest": DATASET.digest}]
    assert run.made == ["tiny-ptr-uid-0-1"]
    assert [event.reason for event in run.events] == ["Accepted", "Waiting"]


@pytest.mark.parametrize("comes", [True, False])
def test_what_is_applied_with_a_run_has_seconds_to_come_before_it_is_told_to_be_missing(
    cluster: Make, comes: bool
) -> None:
    run = cluster(**NAMED)
    run.resource["metadata"]["creationTimestamp"] = "2026-05-01T11:59:59Z"
    assert run.reconcile().requeue_after == 4
    assert [event.reason for event in run.events] == ["Accepted"]
    run.wait(4)
    run.references = {WEB: Referred("Pending")} if comes else {}
    run.reconcile()
    assert run.said("DatasetReady") == ("False", "Building" if comes else "NotFound")
    assert [event.type for event in run.events] == ["Normal", "Normal" if comes else "Warning"]


def test_a_name_that_two_finished_runs_have_is_not_guessed_at(cluster: Make) -> None:
    run = cluster(initialize={"from": {"name": "base"}})
    for kind in ("PretrainRun", "AlignmentRun"):
        run.references[Reference(kind, "team", "base")] = Referred("Succeeded", DATASET)
    run.reconcile()
    assert run.said("BaseReady") == ("False", "InvalidSpec")
    assert "PretrainRun/base and AlignmentRun/base are both there" in run.message("BaseReady")
    assert run.made == []


def test_an_alignment_waits_for_the_model_that_judges_its_answers(cluster: Make) -> None:
    judge = {"name": "judge", "kind": "AlignmentRun"}
    run = cluster("AlignmentRun", evaluation={"prompts": ["Who are you?"], "judge": judge})
    run.reconcile()
    assert (run.status["phase"], run.said("BaseReady")) == ("Waiting", ("False", "NotFound"))
    run.references = {Reference("AlignmentRun", "team", "judge"): Referred("Succeeded", DATASET)}
    run.reconcile()
    assert run.said("BaseReady") == ("True", "Ready")
    assert run.status["inputs"][1] == {"field": "spec.evaluation.judge", "uri": DATASET.uri, "digest": DATASET.digest}


def test_a_run_keeps_to_the_inputs_with_which_it_started(cluster: Make) -> None:
    run = cluster(**NAMED)
    run.references = {WEB: Referred("Succeeded", DATASET)}
    run.run()
    key = run.status["key"]
    run.references = {}
    run.fails(0, signal="SIGKILL")
    run.reconcile()
    assert (run.status["attempt"], run.status["key"], len(run.made)) == (2, key, 2)
