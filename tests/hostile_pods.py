"""Documents that ask for everything that a pod can be, and installations that allow some of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from hypothesis import strategies as st

from kindling_api.documents import parse
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render import render
from kindling_operator.render.cleanup import cleanup_job
from kindling_operator.render.serving import serving_objects
from kindling_operator.render.templates import template_of
from kindling_operator.settings import Allowed, Images, Pods, Settings

Object = dict[str, Any]

STORAGE = StorageSpec(uri="s3://llm", credentials_secret="kindling-storage")
IMAGES = Images(trainer="trainer:1", dataprep="dataprep:1", serve="serve:1")
NASTY = ["'; rm -rf / #", "$(HOME)", "${KEY}", "{{ x }}", "\n  hostNetwork: true", "&a *a", "\u202e", "\x85", "🔥", ""]

INSTALLED: Object = {
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "volumes": [{"name": "lake", "persistentVolumeClaim": {"claimName": "lake"}}],
    "volumeMounts": [{"name": "lake", "mountPath": "/mnt/lake", "readOnly": True}],
    "priorityClassName": "low",
}
OPEN = Allowed(
    env=("NCCL_DEBUG", "TZ", "HTTPS_PROXY", "HOME"),
    env_from=("team",),
    mount_paths=("/mnt/", "/tmp/"),
    csi_drivers=("lake.example.com",),
    service_accounts=("reads-lake",),
    priority_classes=("low", "middle"),
    schedulers=("gangs",),
    runtime_classes=("gvisor",),
)


def installations() -> list[Settings]:
    """Closed and open ones, with and without a template, the node's network and labels of documents."""
    return [
        Settings(
            images=IMAGES,
            storage=STORAGE,
            allow=allow.model_copy(update={"host_network": host_network}),
            pod_template=PodTemplate.model_validate_json(json.dumps(template)),
            pods=Pods(carried_labels=labels),
        )
        for allow, host_network, template, labels in itertools.product(
            (Allowed(), OPEN), (False, True), ({}, INSTALLED), ((), ("example.com/", "kindling.dev/"))
        )
    ]


SPECS: dict[str, Object] = {
    "DatasetBuild": {"sources": [{"uri": "s3://b/x"}]},
    "PretrainRun": {
        "dataset": {"uri": "s3://b/d"}, "model": {"preset": "llama-tiny"}, "training": {"steps": 1},
        "resources": {"gpu": "nvidia.com/gpu"},
    },
    "AlignmentRun": {
        "base": {"uri": "s3://b/m"}, "method": {"sft": {}}, "data": [{"uri": "s3://b/x"}], "serve": {"replicas": 1},
    },
}  # fmt: skip
WORKERS = {"engine": {"workers": 2}}

names = st.sampled_from([
    "reads-lake", "reads-lake", "low", "middle", "gangs", "gvisor", "team", "default", "admin",
    "system-node-critical", "kindling-operator", "none",
])  # fmt: skip
texts = st.sampled_from(["x", "eth0", *NASTY])
references = st.fixed_dictionaries({"name": names}, optional={"optional": st.booleans()})
key_references = st.builds(lambda one, key: {**one, "key": key}, references, st.sampled_from(["token", "a.b", "-"]))
variable_names = st.sampled_from([
    "NCCL_DEBUG", "TZ", "HTTPS_PROXY", "HOME", "LD_PRELOAD", "PATH", "PYTHONPATH", "KINDLING_CREDENTIALS",
    "KINDLING_API_KEY", "RANK", "RAY_ADDRESS", "AWS_SECRET_ACCESS_KEY", "HF_ENDPOINT", "9",
])  # fmt: skip
variables = st.builds(lambda name, value: {"name": name, "value": value}, variable_names, texts) | st.builds(
    lambda name, field, reference: {"name": name, "valueFrom": {field: reference}},
    variable_names,
    st.sampled_from(["secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef"]),
    key_references,
)
labels = st.dictionaries(
    st.sampled_from(["example.com/team", "kindling.dev/name", "kueue.x-k8s.io/queue-name", "app", "app", "a b"]),
    st.sampled_from(["red", "", "x" * 63, "no such value"]),
    min_size=1,
    max_size=2,
)
volume_names = st.sampled_from(
    ["cache", "cache", "cache", "data", "data", "lake", "run", "temporary", "credentials", "source-x", "Upper"]
)
kinds_of_volumes = st.sampled_from([
    {"persistentVolumeClaim": {"claimName": "cache", "readOnly": True}},
    {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}, {"emptyDir": {}},
    {"csi": {"driver": "lake.example.com", "volumeAttributes": {"bucket": "raw"}}},
    {"csi": {"driver": "hostpath.csi.k8s.io"}},
    {"ephemeral": {"volumeClaimTemplate": {"spec": {"resources": {"requests": {"storage": "1Gi"}}}}}},
    {"configMap": {"name": "words"}}, {"secret": {"secretName": "keys", "optional": True}},
    {"hostPath": {"path": "/"}}, {"hostPath": {"path": "/"}, "emptyDir": {}}, {"nfs": {"server": "a", "path": "/"}},
    {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}, {"image": {"reference": "x"}}, {},
])  # fmt: skip
volumes = st.builds(lambda name, kind: {"name": name, **kind}, volume_names, kinds_of_volumes)
mounts = st.fixed_dictionaries(
    {
        "name": volume_names,
        "mountPath": st.sampled_from([
            "/mnt/cache", "/mnt/data", "/mnt/lake", "/mnt/lake/x", "/mnt", "/", "/etc", "/etc/kindling", "/tmp",
            "/tmp/.cache", "/dev/shm", "/usr/local/lib",
            "/opt/kindling/kindling_trainer", "/mnt/../etc", "mnt", "/mnt/a:b",
        ]),
    },
    optional={"subPath": st.sampled_from(["a/b", "../..", "/etc"]), "readOnly": st.booleans()},
)  # fmt: skip
requirements = st.fixed_dictionaries(
    {"key": st.sampled_from(["zone", "kubernetes.io/hostname"]), "operator": st.sampled_from(["In", "Exists", "Gt"])},
    optional={"values": st.just(["a"])},
)
terms = st.sampled_from([
    {"topologyKey": "zone"}, {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}},
    {"topologyKey": "zone", "namespaceSelector": {}}, {"topologyKey": "zone", "namespaces": ["kube-system"]},
])  # fmt: skip
REQUIRED, PREFERRED = (f"{word}DuringSchedulingIgnoredDuringExecution" for word in ("required", "preferred"))
affinities = st.fixed_dictionaries(
    {},
    optional={
        "nodeAffinity": st.builds(
            lambda one: {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [one]}]}}, requirements
        ),
        "podAffinity": st.builds(lambda one: {REQUIRED: [one]}, terms),
        "podAntiAffinity": st.builds(lambda one: {PREFERRED: [{"weight": 1, "podAffinityTerm": one}]}, terms),
    },
)
sizes = st.sampled_from(["1Gi", "500M", 1024])


def some(items: st.SearchStrategy[Object], key: str) -> st.SearchStrategy[list[Object]]:
    """One or two of these, each with another key."""
    return st.lists(items, min_size=1, max_size=2).map(lambda found: list({one[key]: one for one in found}.values()))


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "metadata": st.builds(lambda found: {"labels": found}, labels),
    "env": some(variables, "name"),
    "envFrom": st.lists(
        st.builds(lambda field, one: {field: one}, st.sampled_from(["secretRef", "configMapRef"]), references),
        max_size=1,
    ),
    "volumes": some(volumes, "name"),
    "volumeMounts": some(mounts, "mountPath"),
    "affinity": affinities,
    "topologySpreadConstraints": st.just([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
    "priorityClassName": names,
    "schedulerName": names,
    "serviceAccountName": names,
    "runtimeClassName": names,
    "imagePullSecrets": st.lists(st.builds(lambda name: {"name": name}, names), max_size=1),
    "hostNetwork": st.booleans(),
    "sharedMemory": sizes,
    "ephemeralStorage": sizes,
    "extendedResources": st.sampled_from([{"rdma/hca": 1}, {"nvidia.com/gpu": 8}, {"cpu": 64}, {"kubernetes.io/x": 1}]),
}
FORBIDDEN = st.sampled_from([
    {"hostPID": True}, {"hostIPC": True}, {"nodeName": "control"}, {"securityContext": {}},
    {"command": ["sh"]},
    {"containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}]}, {"initContainers": []},
    {"automountServiceAccountToken": True}, {"hostAliases": []}, {"shareProcessNamespace": True}, {"tolerations": []},
])  # fmt: skip


fields = st.sampled_from(sorted(FIELDS))


@st.composite
def wishes(draw: st.DrawFn) -> Object:
    """A pod template with a few fields, with the volumes that it mounts, and rarely with a field that there is not."""
    chosen = {draw(fields) for _ in range(draw(st.integers(1, 3)))}
    wish = {field: draw(FIELDS[field]) for field in sorted(chosen)}
    if "volumeMounts" in wish and "volumes" not in wish:
        wish["volumes"] = [
            {"name": name, "emptyDir": {}} for name in sorted({one["name"] for one in wish["volumeMounts"]})
        ]
    return wish | draw(FORBIDDEN) if draw(st.integers(0, 19)) == 0 else wish


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, Object, Object]:
    """A kind, its spec, and the template in it."""
    kind, wish = draw(st.sampled_from(sorted(SPECS))), draw(wishes())
    spec = SPECS[kind] | (WORKERS if kind == "DatasetBuild" and draw(st.booleans()) else {})
    return kind, spec, wish


def objects(kind: str, spec: Object, settings: Settings) -> Iterator[Object]:
    """All that is ever made of a document: an attempt, what serves its model, what cleans up.

    Raises:
        SpecError: it is refused.
    """
    metadata = {"name": "web", "namespace": "team-a", "uid": "1"}
    resource = {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
    document = parse(resource)
    run_file = resolve(document, storage=STORAGE, finished={})
    assert not isinstance(run_file, Waiting)
    made = render(settings, resource, run_file)
    yield from (*made.apply, *made.create)
    if isinstance(document, AlignmentRun):
        yield from serving_objects(settings, resource, document, "s3://llm/models/1/model", STORAGE)
    template = template_of(settings, document.spec)
    yield cleanup_job(settings, resource, STORAGE, "models/1", template=template)


@cache
def without_template(kind: str, workers: bool, number: int) -> list[Object]:
    """The pods of the same document in the same installation, had neither a template."""
    settings = installations()[number].model_copy(update={"pod_template": PodTemplate()})
    return [pod for item in objects(kind, SPECS[kind] | (WORKERS if workers else {}), settings) for pod in pods(item)]


def pods(tree: Any) -> Iterator[Object]:
    """Every template of a pod in an object."""
    if isinstance(tree, dict):
        if "containers" in tree.get("spec", {}):
            yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from pods(item)
