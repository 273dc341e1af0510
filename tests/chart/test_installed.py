"""The chart on a real API server: what Helm does there, and whether the rights it gives are enough for the operator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import yaml

PROJECT = Path(__file__).parents[2]
sys.path.insert(0, str(PROJECT / "tests" / "cluster"))

from kubenode.api_server import ApiServer, free_port  # noqa: E402

CHART = PROJECT / "charts" / "kindling"
ACCOUNT = "system:serviceaccount:kindling:kindling"
NAMESPACED = {"watch": {"namespaces": ["team-a"]}, "minio": {"enabled": True}}
CLUSTER = {"watch": {"cluster": True}, "minio": {"enabled": True}, "storage": {"namespaces": ["team-a"]}}

RUN = """
apiVersion: kindling.dev/v1alpha1
kind: PretrainRun
metadata: {namespace: team-a, name: tiny}
spec:
  dataset: {uri: s3://kindling/dataset}
  model: {preset: llama-tiny}
  training: {steps: 10, batch: {tokens: 65536}}
  retention: Delete
"""

STORAGE_CLASS = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: standard, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}
provisioner: example.com/disks
"""

OF_EVERYBODY = {
    "selfsubjectaccessreviews.authorization.k8s.io": {"create"},
    "selfsubjectrulesreviews.authorization.k8s.io": {"create"},
    "selfsubjectreviews.authentication.k8s.io": {"create"},
}
"""What Kubernetes lets every account do: ask about itself."""
OF_THE_LEADER = {
    "leases.coordination.k8s.io": {"create"},
    "leases.coordination.k8s.io kindling-operator": {"get", "update"},
}
_KINDS = ("datasetbuilds", "pretrainruns", "alignmentruns")
IN_WATCHED = {
    **{f"{kind}.kindling.dev": {"get", "list", "watch", "patch", "delete"} for kind in _KINDS},
    **{f"{kind}/status.kindling.dev": {"get", "patch"} for kind in _KINDS},
    **{f"{kind}/finalizers.kindling.dev": {"update"} for kind in _KINDS},
    "jobs.batch": {"get", "list", "watch", "create", "patch", "delete"},
    "rayjobs.ray.io": {"get", "list", "watch", "create", "patch", "delete"},
    "deployments.apps": {"get", "list", "watch", "create", "patch", "delete"},
    "pods": {"get", "list", "watch"},
    "configmaps": {"get", "create", "patch", "delete"},
    "services": {"get", "create", "patch", "delete"},
    "networkpolicies.networking.k8s.io": {"get", "create", "patch", "delete"},
    "events": {"list", "watch", "create", "patch"},
    "workloads.kueue.x-k8s.io": {"get", "list", "patch"},  # where a run waits in a queue
}
OUTLIVING = {
    **{f"{kind}.kindling.dev": {"get", "list", "patch"} for kind in _KINDS},
    "namespaces team-a": {"get"},
}
"""What the operator may do without the Roles of watched namespaces."""

ORDERS = tuple(permutations(("role", "rolebinding", "pretrainrun")))
"""In which a namespace that is deleted may lose what is in it."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test may build Helm

Object = dict[str, Any]


class Release:
    """The chart's release `kindling`, in the namespace `kindling`."""

    def __init__(self, helm: Any, server: ApiServer) -> None:
        self._helm, self.server = helm, server
        self._admin = f"--kubeconfig={server.kubeconfig()}"

    def helm(self, *command: str, values: Object | None = None) -> str:
        file = self.server.folder / "values.yaml"
        file.write_text(yaml.safe_dump(values or {}), encoding="utf-8")
        given = () if values is None else ("--values", str(file))
        done = self._helm(*command, *given, "--namespace=kindling", self._admin)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def upgrade(self, values: Object) -> str:
        return self.helm("upgrade", "--install", "kindling", str(CHART), values=values)

    def kubectl(self, *command: str, text: str | None = None) -> str:
        command = ("kubectl", self._admin, *command)
        done = subprocess.run(command, input=text, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *what: str) -> Object:
        found: Object = json.loads(self.kubectl("get", *what, "--output=json"))
        return found

    def rights(self, namespace: str) -> dict[str, set[str]]:
        """What the operator may do in a namespace: verbs by resource, as `kubectl auth can-i --list` tells."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        command = ("create", "--validate=false", "--filename=-", "--output=json", f"--as={ACCOUNT}")
        said = self.kubectl(*command, text=json.dumps(review))
        found: dict[str, set[str]] = {}
        for rule in json.loads(said)["status"]["resourceRules"]:
            for resource in (
                f"{resource}.{group}".rstrip(".") for group in rule["apiGroups"] for resource in rule["resources"]
            ):
                for name in rule.get("resourceNames", [""]):
                    found.setdefault(f"{resource} {name}".rstrip(), set()).update(rule["verbs"])
        return found

    def finalize(self, namespace: str) -> None:
        """Let a namespace go that is being deleted, as its controller does once nothing is in it."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}, "spec": {"finalizers": []}}
        where = f"--raw=/api/v1/namespaces/{namespace}/finalize"
        self.kubectl("replace", where, "--filename=-", text=json.dumps(body))

    @contextmanager
    def operator(self) -> Iterator[Path]:
        """The operator as a process, with the installed settings and account; gives its log."""
        folder = self.server.folder
        settings = self.get("configmap", "kindling-settings", "--namespace=kindling")["data"]["settings.json"]
        (folder / "settings.json").write_text(settings, encoding="utf-8")
        kubeconfig = json.loads(self.server.kubeconfig().read_text(encoding="utf-8"))
        token = self.kubectl("create", "token", "kindling", "--namespace=kindling").strip()
        kubeconfig["users"][0]["user"] = {"token": token}
        (folder / "account.kubeconfig").write_text(json.dumps(kubeconfig), encoding="utf-8")
        command = [sys.executable, "-m", "kindling_operator", str(folder / "settings.json"), "--port", str(free_port())]
        log = folder / "operator.log"
        with log.open("wb") as output:
            environment = {**os.environ, "KUBECONFIG": str(folder / "account.kubeconfig")}
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            yield log
        finally:
            process.kill()
            process.wait()


@contextmanager
def releasable(helm: Any, folder: Path) -> Iterator[Release]:
    """An API server with the namespaces that the tests use."""
    if problem := ApiServer.missing():
        pytest.skip(problem)
    with ApiServer(folder) as server:
        release = Release(helm, server)
        for namespace in ("kindling", "team-a", "team-b"):
            release.kubectl("create", "namespace", namespace)
        release.kubectl("apply", "--filename=-", text=STORAGE_CLASS)
        yield release


@pytest.fixture(scope="module", params=[NAMESPACED, CLUSTER], ids=["in namespaces", "in the cluster"])
def installed(request: pytest.FixtureRequest, helm: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    """The chart in each of its two modes."""
    with releasable(helm, tmp_path_factory.mktemp("api-server")) as release:
        release.upgrade(request.param)
        yield release


def wait(ready: Callable[[], Any], log: Path, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")[-4000:]
        time.sleep(0.2)


def test_an_upgrade_keeps_the_key_and_an_uninstall_keeps_documents(helm: Any, tmp_path: Path) -> None:
    with releasable(helm, tmp_path) as release:

        def key() -> Object:
            found: Object = release.get("secret", "kindling-storage", "--namespace=team-a")["data"]
            return found

        said = release.upgrade(NAMESPACED)
        assert "kubectl --namespace team-a apply" in said
        assert "default StorageClass" not in said
        before = key()
        release.kubectl("apply", "--filename=-", text=RUN)
        release.kubectl("delete", "storageclass", "standard")
        said = release.upgrade({**NAMESPACED, "operator": {"replicas": 2}})
        assert "no default StorageClass, so MinIO waits for its volume" in said, "an upgrade goes on all the same"
        assert key() == before
        release.helm("uninstall", "kindling")
        assert release.get("pretrainrun", "tiny", "--namespace=team-a")["spec"]["retention"] == "Delete"
        with pytest.raises(
            AssertionError, match="no default StorageClass, so MinIO waits for its volume for ever: name"
        ):
            release.upgrade(NAMESPACED)
        release.upgrade({**NAMESPACED, "minio": {"enabled": False}})  # definitions that stayed are taken over


def test_the_operators_rights_are_enough(installed: Release) -> None:
    release = installed

    def status() -> Object:
        found: Object = release.get("pretrainrun", "tiny", "--namespace=team-a").get("status", {})
        return found

    def jobs() -> set[str]:
        return {item["metadata"]["name"] for item in release.get("jobs", "--namespace=team-a")["items"]}

    def children() -> set[str]:
        kinds = "jobs,configmaps,services,networkpolicies"
        items = release.get(kinds, "--namespace=team-a", "--selector=kindling.dev/name=tiny")["items"]
        return {item["kind"] for item in items}

    with release.operator() as log:
        release.kubectl("apply", "--filename=-", text=RUN)
        wait(lambda: children() == {"Job", "ConfigMap", "Service", "NetworkPolicy"}, log)
        wait(lambda: status().get("attempt") == 1, log)
        events = release.get("events", "--namespace=team-a", "--field-selector=involvedObject.name=tiny")["items"]
        assert {event["reason"] for event in events} >= {"Accepted"}
        assert release.get("pretrainrun", "tiny", "--namespace=team-a")["metadata"]["finalizers"]
        release.kubectl(
            "patch",
            "pretrainrun",
            "tiny",
            "--namespace=team-a",
            "--type=merge",
            f"--patch={json.dumps({'spec': {'suspend': True}})}",
        )
        wait(lambda: status().get("phase") == "Suspended", log)
        uid = release.get("pretrainrun", "tiny", "--namespace=team-a")["metadata"]["uid"]
        release.kubectl("delete", "pretrainrun", "tiny", "--namespace=team-a", "--wait=false")
        wait(lambda: jobs() == {f"tiny-ptr-{uid[:8]}-delete"}, log)
        said = log.read_text(encoding="utf-8")
        assert "orbidden" not in said and "403" not in said, said[-4000:]


def test_the_operator_may_no_more(installed: Release) -> None:
    settings = installed.get("configmap", "kindling-settings", "--namespace=kindling")["data"]["settings.json"]
    namespaced = bool(json.loads(settings)["namespaces"])
    elsewhere = OF_EVERYBODY | (OUTLIVING if namespaced else IN_WATCHED)
    assert installed.rights("team-a") == elsewhere | IN_WATCHED
    assert installed.rights("team-b") == elsewhere
    assert installed.rights("kindling") == elsewhere | OF_THE_LEADER


def test_the_operators_account_changes_finalizers_and_nothing_else(installed: Release) -> None:
    """Whatever its rights to patch documents are."""
    document = RUN.replace("name: tiny", "name: guarded")
    installed.kubectl("apply", "--filename=-", text=document)

    def patch(**changes: Object) -> str:
        options = ("--type=merge", f"--patch={json.dumps(changes)}", "--namespace=team-a", f"--as={ACCOUNT}")
        command = ("kubectl", f"--kubeconfig={installed.server.kubeconfig()}", "patch", "pretrainrun", "guarded")
        return subprocess.run((*command, *options), check=False, capture_output=True, text=True).stderr

    wait(lambda: "may not change a spec" in patch(spec={"suspend": True}), installed.server.folder / "values.yaml")
    assert "no labels" in patch(metadata={"labels": {"mine": "yes"}})
    assert "no labels" in patch(metadata={"annotations": {"mine": "yes"}})
    assert "no finalizer but its own" in patch(metadata={"finalizers": ["example.com/other"]})
    assert patch(metadata={"finalizers": ["kindling.dev/retention"]}) == ""
    assert patch(metadata={"finalizers": []}) == ""
    installed.kubectl("delete", "pretrainrun", "guarded", "--namespace=team-a")


@pytest.mark.parametrize("mode", ["in namespaces", "in the cluster"])
def test_a_namespace_goes_whatever_in_it_goes_first_and_is_watched_again_when_it_is_back(
    mode: str, helm: Any, tmp_path: Path
) -> None:
    names = [f"going-{number}" for number in range(len(ORDERS))]
    storage = {"uri": "s3://llm", "credentials": {"accessKeyId": "id", "secretAccessKey": "for-tests-only"}}
    values: Object = {"watch": {"namespaces": ["team-a", *names]}, "storage": storage}
    if mode == "in the cluster":
        values = {"watch": {"cluster": True}, "storage": {**storage, "namespaces": names}}
    with releasable(helm, tmp_path) as release:

        def documents(namespace: str) -> list[Object]:
            found: list[Object] = release.get("pretrainruns", f"--namespace={namespace}")["items"]
            return found

        def gone() -> bool:
            return not any(documents(name) for name in names)

        for name in names:
            release.kubectl("create", "namespace", name)
        release.upgrade(values)
        with release.operator() as log:
            for name in names:
                release.kubectl("apply", "--filename=-", text=RUN.replace("namespace: team-a", f"namespace: {name}"))
            wait(lambda: all(one["metadata"].get("finalizers") for name in names for one in documents(name)), log)
            for name, order in zip(names, ORDERS, strict=True):
                release.kubectl("delete", "namespace", name, "--wait=false")
                for kind in order:
                    options = ("--all", "--wait=false", "--ignore-not-found")
                    release.kubectl("delete", kind, f"--namespace={name}", *options)
            wait(gone, log, 150)
            if mode == "in namespaces":  # the others cannot be named
                release.upgrade(values)
                said = log.read_text(encoding="utf-8")
                assert [said.count(f"the namespace {name} is being deleted") for name in names] == [1] * len(names)
                release.finalize(names[0])
                wait(lambda: f"there is no namespace {names[0]}" in log.read_text(encoding="utf-8"), log)
                release.kubectl("create", "namespace", names[0])
                release.upgrade(values)
                release.kubectl("apply", "--filename=-", text=RUN.replace("team-a", names[0]))
                wait(lambda: documents(names[0])[0].get("status", {}).get("attempt") == 1, log)
                assert '"level": "error"' not in log.read_text(encoding="utf-8")


def test_a_namespace_that_went_while_the_operator_was_away_is_let_go(helm: Any, tmp_path: Path) -> None:
    with releasable(helm, tmp_path) as release:
        release.upgrade(NAMESPACED)
        release.kubectl("apply", "--filename=-", text=RUN)
        with release.operator() as log:
            wait(lambda: release.get("pretrainrun", "tiny", "--namespace=team-a")["metadata"].get("finalizers"), log)
        release.kubectl("delete", "namespace", "team-a", "--wait=false")
        for kind in ORDERS[0]:
            release.kubectl("delete", kind, "--all", "--namespace=team-a", "--wait=false")
        with release.operator() as log:
            wait(lambda: not release.get("pretrainruns", "--namespace=team-a")["items"], log)


@pytest.mark.parametrize("mode", ["in namespaces", "in the cluster"])
def test_a_namespace_that_is_not_there_yet_fails_no_release(mode: str, helm: Any, tmp_path: Path) -> None:
    names = ["later", "team-a"]
    storage: Object = {"uri": "s3://llm", "credentials": {"accessKeyId": "id", "secretAccessKey": "for-tests-only"}}
    values: Object = {"watch": {"namespaces": names}, "storage": storage}
    if mode == "in the cluster":
        values = {"watch": {"cluster": True}, "storage": {**storage, "namespaces": names}}
    with releasable(helm, tmp_path) as release:
        said = release.upgrade(values)
        assert "The namespace later is not there" in said
        assert "kubectl --namespace team-a apply" in said, "the commands are for one that is there"
        release.kubectl("create", "namespace", "later")
        assert "is not there" not in release.upgrade(values)
        assert release.get("secret", "kindling-storage", "--namespace=later")["data"]
