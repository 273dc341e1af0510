"""A finished AlignmentRun with `spec.serve` is served, and says so, until its spec no longer asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kindling_operator.world import Object, ObjectKey

WHERE = "http://tiny-serve.team.svc.cluster.local"
DEPLOYMENT = ObjectKey("apps/v1", "Deployment", "team", "tiny-serve-uid-0")
SERVICE = ObjectKey("v1", "Service", "team", "tiny-serve")
POLICY = ObjectKey("networking.k8s.io/v1", "NetworkPolicy", "team", "tiny-serve-uid-0")


@pytest.fixture
def finished(cluster: Callable[..., Any]) -> Callable[..., Any]:
    """A cluster in which an AlignmentRun has succeeded."""

    def make(**spec: Any) -> Any:
        run = cluster("AlignmentRun", **spec)
        run.run()
        run.succeeds()
        run.reconcile()
        return run

    return make


def come(run: Any, pods: int, **status: Any) -> None:
    """The Deployment's controller tells how many pods answer."""
    run.objects[DEPLOYMENT]["status"] = {"availableReplicas": pods, **status}
    run.reconcile()


def test_nothing_is_served_before_there_is_a_model(cluster: Callable[..., Any]) -> None:
    run = cluster("AlignmentRun", serve={})
    run.run()
    assert DEPLOYMENT not in run.objects
    assert run.said("Serving") is None


def test_the_model_is_served_once_there_is_one(finished: Callable[..., Any]) -> None:
    run = finished(serve={"replicas": 2})
    assert run.said("Serving") == ("False", "Starting")
    come(run, 1)
    assert run.said("Serving") == ("True", "Ready")
    assert run.message("Serving") == f"1 of 2 pods answer at {WHERE}."
    assert run.status["result"]["endpoint"] == WHERE
    assert run.status["phase"] == "Succeeded"
    assert [event.reason for event in run.events].count("Serving") == 1
    come(run, 0)
    assert run.said("Serving") == ("False", "Starting")


def test_pods_that_do_not_come_are_explained(finished: Callable[..., Any]) -> None:
    run = finished(serve={})
    stalled = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "it is stuck"}
    come(run, 0, conditions=[{"type": "Available", "status": "False"}, stalled])
    assert (run.said("Serving"), run.message("Serving")) == (("False", "CannotStart"), "it is stuck")


def test_serving_ends_when_the_spec_no_longer_asks_for_it(finished: Callable[..., Any]) -> None:
    run = finished(serve={})
    come(run, 1)
    run.edit(serve={"replicas": 0})
    run.reconcile()
    assert run.objects[DEPLOYMENT]["spec"]["replicas"] == 0
    assert run.said("Serving") == ("False", "SuspendedByUser")
    run.edit(serve=None)
    run.reconcile()
    assert not {DEPLOYMENT, SERVICE, POLICY} & set(run.objects)
    assert run.said("Serving") == ("False", "SuspendedByUser")
    assert "endpoint" not in run.status["result"]


def test_a_run_that_is_served_outlives_its_time(finished: Callable[..., Any]) -> None:
    run = finished(serve={}, ttlAfterFinished="1h")
    run.wait(7200)
    run.reconcile()
    assert not run.gone
    run.edit(serve=None)
    run.reconcile()
    assert run.gone


def test_serving_may_be_asked_for_after_the_end(finished: Callable[..., Any]) -> None:
    run = finished()
    assert run.said("Serving") is None
    run.edit(serve={})
    run.reconcile()
    assert DEPLOYMENT in run.objects


def ingress(run: Any) -> list[Object]:
    (rule,) = run.objects[POLICY]["spec"]["ingress"]
    clients: list[Object] = rule["from"]
    return clients


def test_without_a_key_only_the_namespace_may_ask(finished: Callable[..., Any]) -> None:
    assert {"podSelector": {}} in ingress(finished(serve={}))
    run = finished(serve={"apiKeySecret": "key"})
    assert {"namespaceSelector": {}} in ingress(run)
    (container,) = run.objects[DEPLOYMENT]["spec"]["template"]["spec"]["containers"]
    key = {"secretKeyRef": {"name": "key", "key": "apiKey"}}
    assert {"name": "KINDLING_API_KEY", "valueFrom": key} in container["env"]


def test_what_an_earlier_operator_named_serves_until_its_successor_does(finished: Callable[..., Any]) -> None:
    run = finished(serve={})
    earlier = [ObjectKey(key.api_version, key.kind, "team", "tiny-serve") for key in (DEPLOYMENT, POLICY)]
    for key, now in zip(earlier, (DEPLOYMENT, POLICY), strict=True):
        run.objects[key] = run.objects.pop(now)
        run.objects[key]["metadata"]["name"] = key.name
    labels = {name: value for name, value in run.objects[SERVICE]["spec"]["selector"].items() if "uid" not in name}
    run.objects[earlier[0]]["status"] = {"availableReplicas": 1}
    run.reconcile()
    assert set(run.objects) >= {*earlier, DEPLOYMENT, POLICY, SERVICE}
    assert run.objects[SERVICE]["spec"]["selector"] == labels, "it leads to the pods of both"
    assert run.said("Serving") == ("True", "Ready")
    come(run, 1)
    run.apply(run.decide())  # when the watch shows that it is gone
    assert not set(earlier) & set(run.objects)
    assert run.objects[SERVICE]["spec"]["selector"] == labels | {"kindling.dev/uid": "uid-0"}
    assert run.message("Serving") == f"1 of 1 pods answer at {WHERE}."


def test_pods_of_attempts_are_none_of_the_service(finished: Callable[..., Any]) -> None:
    run = finished(serve={})
    selector = run.objects[SERVICE]["spec"]["selector"].items()
    assert selector <= run.objects[DEPLOYMENT]["spec"]["template"]["metadata"]["labels"].items()
    assert all(not selector <= pod["metadata"]["labels"].items() for pod in run.pods)


def test_what_serves_a_model_stays_as_it_is_where_its_pods_may_not_be_what_is_asked(
    finished: Callable[..., Any],
) -> None:
    run = finished(serve={})
    come(run, 1)
    before = run.objects[DEPLOYMENT]
    run.edit(podTemplate={"priorityClassName": "high"})
    run.reconcile()
    assert run.said("Serving") == ("False", "CannotStart")
    assert run.message("Serving").startswith("spec.podTemplate.priorityClassName: found high; allowed: none")
    assert run.objects[DEPLOYMENT] == before
    run.edit(podTemplate={"imagePullSecrets": [{"name": "registry"}]})
    run.reconcile()
    pods = run.objects[DEPLOYMENT]["spec"]["template"]["spec"]
    assert (run.said("Serving"), pods["imagePullSecrets"]) == (("True", "Ready"), [{"name": "registry"}])
