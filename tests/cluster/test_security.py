"""What the operator may do, and what a user cannot make it do."""

from __future__ import annotations

import json

import pytest

from kubenode.client import Object
from kubenode.installation import Installation
from runs import SECRET, Run, pretraining

ACCOUNT = "system:serviceaccount:kindling:kindling"

ANYWHERE = {
    **{f"{kind}.kindling.dev": "get list patch" for kind in ("datasetbuilds", "pretrainruns", "alignmentruns")},
    "namespaces": "get",
}
"""What outlives the Roles of a namespace that goes; a policy of the API server keeps the patches at finalizers."""

MAY = {
    "configmaps": "create delete get patch",
    "deployments.apps": "create delete get list patch watch",
    "events": "create list patch watch",
    "jobs.batch": "create delete get list patch watch",
    "namespaces": "get",
    "networkpolicies.networking.k8s.io": "create delete get patch",
    "pods": "get list watch",
    "rayjobs.ray.io": "create delete get list patch watch",
    "services": "create delete get patch",
    "workloads.kueue.x-k8s.io": "get list patch",
    **{
        f"{kind}.kindling.dev{part}": verbs
        for kind in ("datasetbuilds", "pretrainruns", "alignmentruns")
        for part, verbs in {"": "delete get list patch watch", "/status": "get patch", "/finalizers": "update"}.items()
    },
}
"""In the namespaces that it serves; nothing there about Secrets, rights, other pods' shells, or nodes."""

HOSTILE = [
    {"serviceAccountName": "default", "automountServiceAccountToken": True},
    {"hostNetwork": True, "hostPID": True, "hostIPC": True},
    {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    {"securityContext": {"runAsUser": 0, "privileged": True}},
    {"podTemplate": {"spec": {"containers": [{"name": "more", "image": "example.com/miner:1"}]}}},
    {
        "command": ["sh"],
        "env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}],
        "envFrom": [{"secretRef": {"name": "x"}}],
    },
]


@pytest.mark.parametrize(("namespace", "may"), [("runs", MAY), ("default", ANYWHERE), ("kube-system", ANYWHERE)])
def test_the_operator_has_rights_where_runs_are_and_elsewhere_to_let_documents_go(
    kindling: Installation, namespace: str, may: dict[str, str]
) -> None:
    table = kindling.cluster.kubectl("auth", "can-i", "--list", f"--as={ACCOUNT}", "-n", namespace)
    assert rights(table) == may


@pytest.mark.parametrize("fields", HOSTILE, ids=lambda fields: ", ".join(fields))
def test_nothing_of_a_pod_can_be_brought_in(kindling: Installation, fields: Object) -> None:
    document = pretraining("hostile", {"uri": "s3://nowhere/dataset"}, **fields)
    where = ("-n", kindling.runs, "-f", "-")
    strict = kindling.cluster.run_kubectl("create", *where, standard_input=json.dumps(document))
    assert strict.returncode != 0 and "unknown field" in strict.stderr
    empty: Object = {"podTemplate": {}} if "podTemplate" in fields else {}
    plain = pretraining("hostile", {"uri": "s3://nowhere/dataset"}, **empty)
    clean = created(kindling, "create", "--dry-run=server", *where, document=plain)
    loose = created(kindling, "create", "--dry-run=server", "--validate=false", *where, document=document)
    assert loose == clean, "what is not refused is not kept"


def test_a_pod_that_is_not_restricted_is_not_let_in(kindling: Installation) -> None:
    pod = {"containers": [{"name": "pod", "image": "example.com/miner:1", "securityContext": {"privileged": True}}]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hostile"}, "spec": pod}
    command = ("create", "-n", kindling.runs, "--dry-run=server", "-f", "-")
    refused = kindling.cluster.run_kubectl(*command, standard_input=json.dumps(manifest))
    assert 'violates PodSecurity "restricted' in refused.stderr


def test_pods_of_runs_pass_as_restricted_and_have_no_token(kindling: Installation) -> None:
    kindling.cluster.apply(pretraining("modest", {"uri": "s3://nowhere/dataset"}), namespace=kindling.runs)
    run = Run(kindling.cluster, "PretrainRun", "modest", kindling.runs)
    pods = run.wait("has pods, where Pod Security is enforced", lambda _: run.pods(), 30)
    run.delete()
    for pod in pods:
        assert pod["spec"]["automountServiceAccountToken"] is False
        volumes = pod["spec"]["volumes"]
        assert {source for volume in volumes for source in volume} <= {"name", "emptyDir", "configMap", "projected"}
        (credentials,) = [volume["projected"]["sources"] for volume in volumes if "projected" in volume]
        assert {(*source, source["secret"]["name"]) for source in credentials} == {("secret", SECRET)}
        assert all(item["key"].startswith("AWS_") for source in credentials for item in source["secret"]["items"])


def created(kindling: Installation, *command: str, document: Object) -> Object:
    """The spec of a document as the API server would keep it."""
    kept = kindling.cluster.kubectl(*command, "-o", "json", standard_input=json.dumps(document))
    spec: Object = json.loads(kept)["spec"]
    return spec


def rights(table: str) -> dict[str, str]:
    """What `kubectl auth can-i --list` says about resources, but what every account may: ask about itself."""
    found = {}
    for line in table.splitlines()[1:]:
        resource, *_ = line.split()
        verbs = line.rpartition("[")[2].rstrip("]")
        if line[0] not in " [" and not resource.endswith((".authorization.k8s.io", ".authentication.k8s.io")):
            found[resource] = " ".join(sorted(verbs.split()))
    return found
