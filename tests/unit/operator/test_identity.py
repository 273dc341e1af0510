"""A document that is deleted, changed and applied again under its name; and what an earlier operator has named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_operator.world import ObjectKey

Make = Callable[..., Any]
Story = Callable[[Any], None]


def applied(run: Any) -> None:
    """Nothing has been made of it."""


def announced(run: Any) -> None:
    run.apply(run.decide())


def half_made(run: Any) -> None:
    announced(run)
    run.apply(run.decide(), writes=4)


def started(run: Any) -> None:
    run.reconcile()


def running(run: Any) -> None:
    run.run()


def saved(run: Any) -> None:
    run.run()
    run.says(60, saved=50)
    run.reconcile()


def restarting(run: Any) -> None:
    saved(run)
    run.fails(1, signal="SIGKILL")
    run.reconcile()


def suspended(run: Any) -> None:
    saved(run)
    run.edit(suspend=True)
    run.reconcile()


def succeeded(run: Any) -> None:
    saved(run)
    run.succeeds()
    run.reconcile()


def failed(run: Any) -> None:
    saved(run)
    run.fails(0, code=2, reason="UserError")
    run.reconcile()


@pytest.mark.parametrize(
    "story",
    [applied, announced, half_made, started, running, saved, restarting, suspended, succeeded, failed],
    ids=lambda story: story.__name__,
)
@pytest.mark.parametrize("collected", [True, False], ids=["garbage is collected at once", "garbage stays"])
def test_another_document_of_the_name_begins_with_nothing_of_the_first(
    cluster: Make, story: Story, collected: bool
) -> None:
    run = cluster(checkpoint={"every": 10})
    story(run)
    before, key, names = dict(run.objects), run.status.get("key"), list(run.made)
    run.apply_again(training={"steps": 60}, suspend=False)
    if collected:
        run.collect_garbage()
    run.reconcile()
    assert run.status["attempt"] == 1
    assert not {"progress", "checkpoint", "result", "lastFailure"} & run.status.keys()
    assert run.status["key"] != key
    (made,) = set(run.made) - set(names)
    assert made == f"tiny-ptr-{run.uid[:8]}-1"
    assert not collected or {key.name for key in run.objects} == {made}
    assert all(run.objects[key] == item for key, item in before.items() if not collected), "nor touches it"
    run.schedule()
    run.says(10)
    run.reconcile()
    assert run.status["phase"] == "Running"
    assert run.status["attempts"][0]["uid"] == run.job["metadata"]["uid"]
    assert run.status["progress"]["step"] == 10


def named_by_an_earlier_operator(run: Any) -> None:
    """What there is of the first attempt has the names and labels that it had before they held a UID."""
    for key, item in list(run.objects.items()):
        del run.objects[key]
        item["metadata"]["name"] = "tiny-ptr-1"
        del item["metadata"]["labels"]["kindling.dev/uid"]
        run.objects[ObjectKey(key.api_version, key.kind, key.namespace, "tiny-ptr-1")] = item
    run.made[:] = ["tiny-ptr-1"]


def test_an_attempt_that_an_earlier_operator_named_goes_on_and_nothing_is_made_twice(cluster: Make) -> None:
    run = cluster()
    run.run()
    named_by_an_earlier_operator(run)
    run.says(60, saved=50)
    run.reconcile()
    assert (run.made, run.status["attempt"], run.status["progress"]["step"]) == (["tiny-ptr-1"], 1, 60)
    run.fails(1, signal="SIGKILL")
    run.reconcile()
    assert run.made == ["tiny-ptr-1", "tiny-ptr-uid-0-2"]
    run.schedule()
    run.fails(1, signal="SIGKILL")
    run.job_ends()
    run.reconcile()
    run.wait(30)
    run.reconcile()
    assert {key.name for key in run.objects} == {"tiny-ptr-uid-0-2", "tiny-ptr-uid-0-3"}, "the first attempt's are gone"


def test_a_clean_up_that_an_earlier_operator_named_is_not_begun_again(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    run.delete(ObjectKey("kindling.dev/v1alpha1", "PretrainRun", "team", "tiny"))
    run.reconcile()
    (key,) = (key for key in run.objects if key.name.endswith("-delete"))
    job = run.objects.pop(key)
    job["metadata"]["name"] = "tiny-ptr-delete"
    run.objects[ObjectKey(key.api_version, key.kind, key.namespace, "tiny-ptr-delete")] = job
    assert run.reconcile().create == ()
