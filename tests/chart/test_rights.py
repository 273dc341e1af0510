"""What the chart's pods may do to their node, and its operator to the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CASES = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))
OPERATORS = ("kindling-kindling", "kindling-kindling-finalizers", "kindling-leader")
"""The operator's roles; the others are for people."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test may build Helm

Object = dict[str, Any]
Objects = Callable[..., list[Object]]


def roles(items: list[Object]) -> Iterator[tuple[Object, Object]]:
    """Each rule of the operator's own roles, with the role."""
    for item in items:
        if item["kind"] in ("Role", "ClusterRole") and item["metadata"]["name"] in OPERATORS:
            yield from ((item, rule) for rule in item["rules"])


def pods(items: list[Object]) -> list[Object]:
    return [item["spec"]["template"]["spec"] for item in items if item["kind"] in ("Deployment", "StatefulSet", "Job")]


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_restricted_and_bounded(objects: Objects, case: str) -> None:
    for pod in pods(objects(HERE / "values" / f"{case}.yaml")):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert {kind for volume in pod["volumes"] for kind in volume} <= {"name", "configMap", "emptyDir"}
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert all({"cpu", "memory"} <= set(container["resources"][side]) for side in ("requests", "limits"))


def test_only_the_operator_has_a_token(objects: Objects) -> None:
    items = objects(HERE / "values" / "local.yaml")
    assert [pod["automountServiceAccountToken"] for pod in pods(items)].count(True) == 1
    (account,) = [item for item in items if item["kind"] == "ServiceAccount"]
    assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("case", CASES)
def test_the_operator_never_touches_secrets_nor_rights_nor_pods(objects: Objects, case: str) -> None:
    for _, rule in roles(objects(HERE / "values" / f"{case}.yaml")):
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        assert not {"escalate", "bind", "impersonate", "deletecollection"} & set(rule["verbs"])
        assert not {"secrets", "pods/exec", "pods/log", "nodes", "serviceaccounts"} & set(rule["resources"])
        assert not any("webhook" in resource or "role" in resource for resource in rule["resources"])
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) <= {"get", "list", "watch"}


def test_the_operator_has_rights_in_the_watched_namespaces_and_nowhere_else(objects: Objects) -> None:
    given = {
        (role["kind"], role["metadata"].get("namespace"))
        for role, _ in roles(objects({"watch": {"namespaces": ["a", "b"]}}))
    }
    everywhere = ("ClusterRole", None)  # what is left where a namespace takes its Role along
    assert given == {("Role", "kindling"), ("Role", "a"), ("Role", "b"), everywhere}  # in its own, the Lease
    given = {
        (role["kind"], role["metadata"].get("namespace")) for role, _ in roles(objects({"watch": {"cluster": True}}))
    }
    assert given == {("Role", "kindling"), ("ClusterRole", None)}


def test_outside_of_watched_namespaces_it_may_read_documents_and_change_their_finalizers(objects: Objects) -> None:
    items = objects({"watch": {"namespaces": ["a", "b"]}})
    rules = [rule for role, rule in roles(items) if role["kind"] == "ClusterRole"]
    kinds = ["datasetbuilds", "pretrainruns", "alignmentruns"]
    assert rules == [
        {"apiGroups": ["kindling.dev"], "resources": kinds, "verbs": ["get", "list", "patch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": ["a", "b"], "verbs": ["get"]},
    ]


@pytest.mark.parametrize("values", [{}, {"watch": {"cluster": True}}, {"rbac": {"serviceAccount": "mine"}}])
def test_a_policy_keeps_the_operators_patches_at_finalizers(objects: Objects, values: Object) -> None:
    items = {item["kind"]: item for item in objects(values) if item["kind"].startswith("Validating")}
    policy, binding = items["ValidatingAdmissionPolicy"]["spec"], items["ValidatingAdmissionPolicyBinding"]["spec"]
    assert binding["policyName"] == items["ValidatingAdmissionPolicy"]["metadata"]["name"]
    assert (binding["validationActions"], policy["failurePolicy"]) == (["Deny"], "Fail")
    account = values.get("rbac", {}).get("serviceAccount", "kindling")
    (by_whom,) = policy["matchConditions"]
    assert by_whom["expression"] == f"request.userInfo.username == 'system:serviceaccount:kindling:{account}'"


def test_a_kubernetes_without_admission_policies_gets_none(objects: Objects) -> None:
    items = objects({}, "--kube-version=1.29.0")
    assert not [item for item in items if item["kind"].startswith("Validating")]


def test_the_rules_are_the_same_wherever_they_hold(objects: Objects) -> None:
    def rules(values: Object) -> list[Object]:
        return [rule for role, rule in roles(objects(values)) if role["metadata"]["name"] == "kindling-kindling"]

    assert rules({"watch": {"namespaces": ["a"]}}) == rules({"watch": {"cluster": True}})


def test_the_lease_is_one_by_name_in_the_operators_own_namespace(objects: Objects) -> None:
    for values in ({}, {"watch": {"cluster": True}}):
        leases = [(role, rule) for role, rule in roles(objects(values)) if "leases" in rule["resources"]]
        assert {(role["kind"], role["metadata"]["namespace"]) for role, _ in leases} == {("Role", "kindling")}
        named = [rule for _, rule in leases if "create" not in rule["verbs"]]
        assert [rule["resourceNames"] for rule in named] == [["kindling-operator"]]


def test_every_role_is_bound_to_the_operator_where_it_is(objects: Objects) -> None:
    items = objects({"watch": {"namespaces": ["a"]}})
    bound = {
        (item["roleRef"]["kind"], item["roleRef"]["name"], item["metadata"].get("namespace"))
        for item in items
        if item["kind"].endswith("RoleBinding")
    }
    assert bound == {
        (role["kind"], role["metadata"]["name"], role["metadata"].get("namespace")) for role, _ in roles(items)
    }
    subjects = [item["subjects"] for item in items if item["kind"].endswith("RoleBinding")]
    assert all(
        subject == [{"kind": "ServiceAccount", "name": "kindling", "namespace": "kindling"}] for subject in subjects
    )


def test_people_get_their_rights_through_the_built_in_roles(objects: Objects) -> None:
    aggregated = {
        label.rpartition("-to-")[2]: item["rules"][0]["verbs"]
        for item in objects({})
        for label in item["metadata"]["labels"]
        if label.startswith("rbac.authorization.k8s.io/")
    }
    assert aggregated["view"] == ["get", "list", "watch"]
    assert {"create", "patch", "delete"} <= set(aggregated["edit"])
    assert all(
        not resource.endswith("/status")
        for item in objects({})
        if item["metadata"]["name"].endswith("-edit")
        for resource in item["rules"][0]["resources"]
    )
