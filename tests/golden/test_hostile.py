"""Whatever stands in a document without a template of pods, it changes their amounts, places and image, and no more."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from hypothesis import event, given, settings
from hypothesis import strategies as st

from kindling_api.documents import parse
from kindling_api.errors import SpecError
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render import Rendered, render
from kindling_operator.render.manifests import text_of
from kindling_operator.settings import Images, Settings
from kindling_operator.world import Object

STORAGE = StorageSpec(uri="s3://llm", credentials_secret="kindling-storage")
SETTINGS = Settings(images=Images(trainer="trainer:1", dataprep="dataprep:1", serve="serve:1"), storage=STORAGE)

NASTY = [
    "'; rm -rf / #", "$(cat /var/run/secrets)", "${AWS_SECRET_ACCESS_KEY}", "`id`", "{{ .Values }}", "../../etc/passwd",
    "\n      hostNetwork: true", "a: b\n---\nkind: Pod", "&anchor *anchor", "!!python/object/apply:os.system [id]",
    "--settings=/etc/shadow", '"}]},"hostPath":{"path":"/"}', "hostPath", "serviceAccountName", "privileged", "null",
    "yes", "0x10", "1e3", "\u202e", "\x85", "\u2028", " ", "169.254.169.254", "🔥" * 3, "a" * 200,
]  # fmt: skip

text = st.sampled_from(NASTY) | st.text(min_size=1, max_size=40)
names = st.from_regex(r"[a-z]([-a-z0-9]{0,36}[a-z0-9])?", fullmatch=True) | st.sampled_from(["null", "true", "n" * 52])
label_keys = text | st.sampled_from(["kubernetes.io/hostname", "kindling.dev/name", "nodeName"])
addresses = st.builds(lambda scheme, rest: scheme + rest, st.sampled_from(["http://", "https://"]), text)
stores = st.builds(lambda scheme, rest: scheme + rest, st.sampled_from(["s3://"] * 8 + ["file://", ""]), text)
cores = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,3})?m?", fullmatch=True)
memory = st.from_regex(r"[0-9]{1,6}(\.[0-9]{1,3})?(k|M|G|T|Ki|Mi|Gi|Ti)?", fullmatch=True)
devices = st.from_regex(r"[a-z0-9.-]{1,20}/[a-z0-9.-]{1,20}", fullmatch=True) | st.just("hugepages.io/memory")
tolerations = st.fixed_dictionaries(
    {},
    optional={
        "key": label_keys,
        "operator": st.sampled_from(["Exists", "Equal"]),
        "value": text,
        "effect": st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
    },
)

controls: dict[str, st.SearchStrategy[Any]] = {
    "image": text,
    "queue": names,
    "priority": names,
    "suspend": st.booleans(),
    "storage": st.fixed_dictionaries(
        {"uri": stores}, optional={"endpoint": addresses, "region": text, "credentialsSecret": names}
    ),
    "huggingFace": st.fixed_dictionaries({}, optional={"tokenSecret": names}),
    "retention": st.sampled_from(["Retain", "Delete"]),
}
training_resources = st.fixed_dictionaries(
    {},
    optional={
        "nodes": st.sampled_from([1, 2, 8]),
        "processesPerNode": st.sampled_from([1, 2]),
        "gpu": devices,
        "cpu": cores,
        "memory": memory,
        "nodeSelector": st.dictionaries(label_keys, text, max_size=3),
        "tolerations": st.lists(tolerations, max_size=3),
    },
)
training = controls | {"resources": training_resources}

source_storage = st.fixed_dictionaries(
    {}, optional={"endpoint": addresses, "region": text, "credentialsSecret": names, "unsigned": st.booleans()}
)
sources = st.fixed_dictionaries({"uri": text}, optional={"textField": text}) | st.fixed_dictionaries(
    {"uri": st.builds("s3://{}".format, text), "storage": source_storage}
)
builds = st.fixed_dictionaries(
    {"sources": st.lists(sources, min_size=1, max_size=2)},
    optional=controls
    | {
        "engine": st.fixed_dictionaries(
            {"workers": st.sampled_from([0, 1, 2, 4096])},
            optional={"resources": st.fixed_dictionaries({}, optional={"cpu": cores, "memory": memory})},
        ),
        "tokenizer": st.builds(lambda uri: {"from": {"uri": uri}}, text),
    },
)
pretrainings = st.fixed_dictionaries(
    {
        "dataset": st.builds(lambda uri: {"uri": uri}, text),
        "model": st.just({"preset": "llama-tiny"}),
        "training": st.just({"steps": 10}),
    },
    optional=training | {"evaluation": st.builds(lambda prompts: {"prompts": prompts}, st.lists(text, max_size=2))},
)
alignments = st.fixed_dictionaries(
    {
        "base": st.builds(lambda uri: {"uri": uri}, text),
        "method": st.just({"sft": {}}) | st.builds(lambda p: {"grpo": {"rewards": [{"format": {"pattern": p}}]}}, text),
        "data": st.builds(lambda uri: [{"uri": uri}], text),
    },
    optional=training | {"chatTemplate": text},
)


@st.composite
def documents(draw: st.DrawFn) -> Object:
    """A custom resource of any kind with nasty values wherever there are free ones."""
    kind, specs = draw(
        st.sampled_from([("DatasetBuild", builds), ("PretrainRun", pretrainings), ("AlignmentRun", alignments)])
    )
    metadata = {"name": draw(names), "namespace": "team-a", "uid": "1"}
    metadata |= {part: draw(st.dictionaries(label_keys, text, max_size=3)) for part in ("labels", "annotations")}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": draw(specs)}


def rendered(resource: Object) -> Rendered:
    """Its first attempt.

    Raises:
        SpecError: the loader or the renderer refuses it.
    """
    run_file = resolve(parse(resource), storage=STORAGE, finished={})
    assert not isinstance(run_file, Waiting)
    return render(SETTINGS, resource, run_file)


def harmless(resource: Object) -> Object:
    """The same document with nothing in it that a user could have chosen otherwise, but for its name, its
    size and the Secrets that it names."""
    spec = resource["spec"]
    plain: Object = {
        "DatasetBuild": {"sources": [{"uri": "s3://b/x"}]},
        "PretrainRun": {"dataset": {"uri": "s3://b/d"}, "model": {"preset": "llama-tiny"}, "training": {"steps": 10}},
        "AlignmentRun": {"base": {"uri": "s3://b/m"}, "method": {"sft": {}}, "data": [{"uri": "s3://b/x"}]},
    }[resource["kind"]]
    sizes = {"resources": ("nodes", "processesPerNode"), "engine": ("workers",)}
    for field, kept in sizes.items():
        plain[field] = {name: value for name, value in spec.get(field, {}).items() if name in kept}
    chosen = {field: spec[field] for field in ("queue", "priority", "suspend", "huggingFace") if field in spec}
    if "storage" in spec:
        chosen["storage"] = spec["storage"] | {"uri": "s3://b"}
    if "sources" in spec:
        chosen["sources"] = [{**source, "uri": "s3://b/x", "textField": "text"} for source in spec["sources"]]
    metadata = {name: resource["metadata"][name] for name in ("name", "namespace", "uid")}
    return resource | {"metadata": metadata, "spec": {field: value for field, value in plain.items() if value} | chosen}


def without_choices(pod: Object) -> Object:
    """A pod's spec without what a user may choose."""
    pod = copy.deepcopy(pod)
    for field in ("nodeSelector", "tolerations"):
        pod.pop(field, None)
    for container in pod["containers"]:
        for field in ("image", "resources"):
            del container[field]
        container["env"] = [variable for variable in container["env"] if "value" in variable]
        container["command"] = [
            re.sub("sha256:[0-9a-f]{64}", "(the key)", part) for part in container.get("command", ())
        ]
    return pod


@settings(max_examples=400)
@given(resource=documents())
@pytest.mark.slow
def test_a_hostile_document_gets_the_pods_of_a_harmless_one(resource: Object, violations: Any, pods: Any) -> None:
    try:
        objects = rendered(resource)
    except SpecError:
        event("refused")
        return
    event(f"{objects.create[1]['kind']} of a {resource['kind']}")
    plain = rendered(harmless(resource))
    assert [violations(item) for item in objects.create] == [[], []]
    assert objects.apply == plain.apply
    ours, theirs = ([without_choices(pod) for pod in pods(item.create[1])] for item in (objects, plain))
    assert ours == theirs
    job, plain_job = objects.create[1], plain.create[1]
    assert (job["metadata"], set(job["spec"])) == (plain_job["metadata"], set(plain_job["spec"]))


@settings(max_examples=60)
@given(resource=documents())
@pytest.mark.slow
def test_a_hostile_document_reaches_the_program_as_data_and_whole(resource: Object) -> None:
    try:
        run_file = resolve(parse(resource), storage=STORAGE, finished={})
        run_map, job = rendered(resource).create
    except SpecError:
        return
    assert not isinstance(run_file, Waiting)
    read = json.loads(run_map["data"]["run.json"])
    said = run_file.document()
    for mutable in ("suspend", "queue"):
        said["spec"].pop(mutable, None)
    if resource["kind"] == "AlignmentRun":
        said["rewardModules"] = []  # the installation's part, which no document reaches
    assert (read, set(run_map["data"])) == (said, {"run.json"})
    assert yaml.safe_load(text_of(job)) == job
    assert yaml.safe_load(text_of(run_map)) == run_map


@pytest.mark.parametrize("kind", ["DatasetBuild", "PretrainRun", "AlignmentRun"])
@pytest.mark.parametrize(
    "field",
    [
        {"serviceAccountName": "admin"},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"podTemplate": {"spec": {"hostPID": True}}},
        {"env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]},
        {"command": ["sh"]},
    ],
    ids=lambda field: next(iter(field)),
)
def test_there_is_no_field_for_pods(kind: str, field: Object) -> None:
    specs = {
        "DatasetBuild": {"sources": [{"uri": "s3://b/x"}]},
        "PretrainRun": {"dataset": {"uri": "s3://b/d"}, "model": {"preset": "llama-tiny"}, "training": {"steps": 1}},
        "AlignmentRun": {"base": {"uri": "s3://b/m"}, "method": {"sft": {}}, "data": [{"uri": "s3://b/x"}]},
    }
    metadata = {"name": "x"}
    spec = specs[kind] | field
    with pytest.raises(SpecError, match=next(iter(field))):
        parse({"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
