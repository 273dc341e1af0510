"""A run keeps the storage that it was accepted with, whatever becomes of the installation's default one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.children import key_of_object

Make = Callable[..., Any]
OLD = StorageSpec(uri="s3://llm", endpoint="http://minio:9000", credentials_secret="minio")
"""The default of the settings that the tests begin with."""
NEW = StorageSpec(uri="s3://new/place", endpoint="http://other:9000", credentials_secret="other")
FOLDER = "models/0123456789abcdef"


def move(run: Any, to: StorageSpec | None = NEW) -> None:
    """Another default storage."""
    run.settings = run.settings.model_copy(update={"storage": to})


def forget(run: Any) -> None:
    """The status as a version wrote it that recorded no storage."""
    del run.resource["status"]["storage"]


def output(run: Any) -> Any:
    """Where the newest attempt's run file says that its products go."""
    name = run.job_key.name
    (text,) = next(
        item["data"] for key, item in run.objects.items() if key.kind == "ConfigMap" and key.name == name
    ).values()
    return json.loads(text)["output"]


def secrets(template: Any) -> set[str]:
    """The Secrets that a pod mounts."""
    sources = (
        part for volume in template["spec"]["volumes"] for part in volume.get("projected", {}).get("sources", ())
    )
    return {part["secret"]["name"] for part in sources}


def test_the_storage_is_in_the_status_before_there_is_any_child(cluster: Make) -> None:
    run = cluster()
    plan = run.decide()
    assert (plan.status["storage"], plan.create, plan.apply) == (OLD.document(), (), ())


def test_a_storage_of_its_own_is_recorded_like_the_default(cluster: Make) -> None:
    assert cluster(storage=NEW.document()).decide().status["storage"] == NEW.document()


def test_what_is_refused_records_none(cluster: Make) -> None:
    run = cluster()
    move(run, None)
    run.reconcile()
    assert "storage" not in run.status
    move(run)
    run.reconcile()
    assert run.status["storage"] == NEW.document()


def test_a_run_that_runs_goes_on_where_it_began(cluster: Make) -> None:
    run = cluster()
    run.run()
    move(run)
    run.fails()
    run.job_ends()
    run.reconcile()
    run.wait(600)
    run.reconcile()
    assert run.status["attempt"] == 2
    assert output(run) == OLD.document()
    assert secrets(run.job["spec"]["template"]) == {"minio"}


def test_a_run_that_waits_begins_where_it_was_accepted(cluster: Make) -> None:
    run = cluster(suspend=True)
    run.reconcile()
    move(run)
    run.edit(suspend=False)
    run.reconcile()
    assert output(run) == OLD.document()


def test_a_model_is_served_from_where_it_is(cluster: Make) -> None:
    run = cluster("AlignmentRun", serve={})
    run.run()
    run.succeeds()
    move(run)
    run.reconcile()
    (deployment,) = [item for key, item in run.objects.items() if key.kind == "Deployment"]
    template = deployment["spec"]["template"]
    assert secrets(template) == {"minio"}
    assert "--endpoint=http://minio:9000" in template["spec"]["containers"][0]["command"]


def test_a_model_that_cannot_be_served_for_want_of_its_secret_says_which(cluster: Make) -> None:
    run = cluster("AlignmentRun", serve={})
    run.run()
    run.succeeds()
    move(run)
    run.reconcile()
    run.pods_beside = [{"metadata": {"name": "tiny-serve-5d-x"}, "status": {"phase": "Pending"}}]
    run.fails_to_mount("tiny-serve-5d-x")
    run.reconcile()
    assert run.said("Serving") == ("False", "SecretMissing")
    assert "The Secret minio" in run.message("Serving")


def test_the_clean_up_goes_where_the_data_is(cluster: Make) -> None:
    run = cluster(retention="Delete")
    run.run()
    move(run)
    run.delete(key_of_object(run.resource))
    run.apply(run.decide())
    run.pods = []
    (job,) = run.decide().create
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    assert f"--storage-json={json.dumps(OLD.document(), sort_keys=True)}" in command


@pytest.mark.parametrize(
    ("moved", "why"), [(False, False), (True, True)], ids=["of today's default", "of the default of then"]
)
def test_a_secret_that_is_gone_is_named_with_the_storage_that_it_is_for(cluster: Make, moved: bool, why: bool) -> None:
    run = cluster()
    run.run()
    if moved:
        move(run)
    run.pod()["status"] = {
        "phase": "Pending",
        "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}],
    }
    run.fails_to_mount(run.pod()["metadata"]["name"])
    run.reconcile()
    assert run.said("Running") == ("False", "SecretMissing")
    said = run.message("Running")
    assert "The Secret minio that" in said
    assert ("It is that of s3://llm, the default storage when this document was accepted" in said) is why


class TestOfAnEarlierVersion:
    """A status in which no storage is recorded."""

    def test_a_run_in_flight_keeps_to_what_its_run_file_says(self, cluster: Make) -> None:
        run = cluster()
        run.run()
        forget(run)
        move(run)
        run.written = OLD
        plan = run.decide()
        assert (plan.status["storage"], plan.events) == (OLD.document(), ())

    def test_without_a_run_file_it_is_todays_default(self, cluster: Make) -> None:
        run = cluster()
        run.run()
        forget(run)
        plan = run.decide()
        assert (plan.status["storage"], plan.events) == (OLD.document(), ())

    @pytest.mark.parametrize("said", ["result", "checkpoint"])
    def test_what_is_known_to_lie_elsewhere_is_looked_for_there_and_told(self, cluster: Make, said: str) -> None:
        run = cluster()
        run.run()
        forget(run)
        where = {
            "uri": f"s3://gone/by/{FOLDER}/checkpoints/1",
            "digest": "sha256:1",
            "step": 1,
            "model": "",
            "steps": 1,
        }
        run.resource["status"][said] = where
        plan = run.decide()
        assert plan.status["storage"] == {**OLD.document(), "uri": "s3://gone/by"}
        assert [event.reason for event in plan.events] == ["StorageAssumed"]
        run.apply(plan)
        assert run.decide().events == (), "it is told once"

    def test_one_that_is_being_deleted_is_cleaned_up_where_its_run_file_says(self, cluster: Make) -> None:
        run = cluster(retention="Delete")
        run.run()
        forget(run)
        move(run)
        run.written = OLD
        run.delete(key_of_object(run.resource))
        run.apply(run.decide())
        run.pods = []
        (job,) = run.decide().create
        assert any('"s3://llm"' in part for part in job["spec"]["template"]["spec"]["containers"][0]["command"])
