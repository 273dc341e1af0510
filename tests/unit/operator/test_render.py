"""One attempt as objects: what must hold beside what tests/golden shows."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kindling_api.documents import parse
from kindling_api.errors import SpecError
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.resources import Toleration
from kindling_api.v1alpha1.runfile import RunFile, read_run_file
from kindling_api.v1alpha1.storage import (
    CREDENTIALS_FOLDER,
    CREDENTIALS_VARIABLE,
    SOURCE_CREDENTIALS_FOLDER,
    SOURCE_CREDENTIALS_VARIABLE,
    StorageSpec,
)
from kindling_operator.render import Rendered, render
from kindling_operator.render.cleanup import cleanup_job
from kindling_operator.render.secrets import HUB_FOLDER, TRACKING_FOLDER
from kindling_operator.settings import Allowed, Egress, HuggingFace, Images, Pods, Rewards, Settings

STORAGE = StorageSpec(uri="s3://llm", endpoint="http://minio:9000", credentials_secret="minio")
SETTINGS = Settings(
    images=Images(trainer="trainer:1", dataprep="dataprep:1", serve="serve:1"),
    rewards=Rewards(allowed_modules=("team.rewards",)),
    storage=STORAGE,
    allow=Allowed(priority_classes=("night",)),
)
UID = "6f6b0b2e-8d1c-4d52-9f7e-0c8f5d8d6a11"
SPECS: dict[str, dict[str, Any]] = {
    "DatasetBuild": {"sources": [{"uri": "builtin:python-stdlib"}]},
    "PretrainRun": {"dataset": {"uri": "s3://d"}, "model": {"preset": "llama-tiny"}, "training": {"steps": 10}},
    "AlignmentRun": {"base": {"uri": "s3://m"}, "method": {"sft": {}}, "data": [{"uri": "s3://chat.jsonl"}]},
}


def resource(kind: str, name: str = "x", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": UID}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": SPECS[kind] | spec}


def run_file(document: dict[str, Any], attempt: int = 1) -> RunFile:
    resolved = resolve(parse(document), storage=STORAGE, finished={}, attempt=attempt)
    assert not isinstance(resolved, Waiting)
    return resolved


def rendered(document: dict[str, Any], attempt: int = 1) -> Rendered:
    return render(SETTINGS, document, run_file(document, attempt))


@pytest.mark.parametrize("kind", SPECS)
def test_the_program_reads_back_the_run_file_that_was_rendered(kind: str, tmp_path: Path) -> None:
    document = resource(kind)
    run_map, _ = rendered(document).create
    (tmp_path / "run.json").write_text(run_map["data"]["run.json"], encoding="utf-8")
    allowed = {"reward_modules": ("team.rewards",)} if kind == "AlignmentRun" else {}  # the installation's part
    assert read_run_file(tmp_path / "run.json") == run_file(document).model_copy(update=allowed)


@pytest.mark.parametrize("kind", SPECS)
def test_what_may_change_in_a_run_does_not_change_its_run_file(kind: str) -> None:
    template = {"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}, "sharedMemory": "1Gi"}
    changed = resource(kind, suspend=True, activeDeadline="1h", ttlAfterFinished="1d", podTemplate=template)
    assert rendered(changed).create[0] == rendered(resource(kind)).create[0]


@pytest.mark.parametrize("kind", SPECS)
def test_everything_of_an_attempt_has_one_name_one_owner_and_one_set_of_labels(kind: str) -> None:
    objects = rendered(resource(kind), attempt=3)
    short = {"DatasetBuild": "dsb", "PretrainRun": "ptr", "AlignmentRun": "alr"}[kind]
    labels = {
        "app.kubernetes.io/managed-by": "kindling",
        "kindling.dev/kind": kind,
        "kindling.dev/name": "x",
        "kindling.dev/uid": UID,
        "kindling.dev/attempt": "3",
    }
    for item in (*objects.apply, *objects.create):
        metadata = item["metadata"]
        assert (metadata["name"], metadata["namespace"]) == (f"x-{short}-6f6b0b2e-3", "team")
        assert metadata["labels"] == labels
        assert [(one["kind"], one["uid"], one["controller"]) for one in metadata["ownerReferences"]] == [
            (kind, UID, True)
        ]


@pytest.mark.parametrize("spec", [{}, {"resources": {"nodes": 4}}], ids=["one node", "four nodes"])
def test_attempts_differ_in_their_number_alone(spec: dict[str, Any]) -> None:
    first, second = (rendered(resource("PretrainRun", **spec), attempt=number) for number in (1, 2))
    text = json.dumps([second.apply, second.create]).replace("x-ptr-6f6b0b2e-2", "x-ptr-6f6b0b2e-1")
    text = text.replace('"kindling.dev/attempt": "2"', '"kindling.dev/attempt": "1"')
    assert json.loads(text.replace('\\"attempt\\": 2', '\\"attempt\\": 1')) == json.loads(
        json.dumps([first.apply, first.create])
    )


@pytest.mark.parametrize("spec", [{}, {"queue": "team-a"}], ids=["no queue", "a queue"])
@pytest.mark.parametrize("engine", [{"workers": 0}, {"workers": 2}], ids=["Job", "RayJob"])
def test_what_is_in_a_queue_starts_without_pods(engine: dict[str, Any], spec: dict[str, Any]) -> None:
    _, job = rendered(resource("DatasetBuild", engine=engine, **spec)).create
    assert job["spec"]["suspend"] is bool(spec)
    assert job["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == spec.get("queue")


PRIORITIES = [
    ({}, None, None),
    ({"queue": "team-a"}, None, None),
    ({"priority": "night"}, None, "night"),
    ({"priority": "night", "queue": "team-a"}, "night", None),
]


@pytest.mark.parametrize(("spec", "of_job", "of_pods"), PRIORITIES, ids=["none", "a queue", "a class", "both"])
@pytest.mark.parametrize("kind", ["PretrainRun", "DatasetBuild", "RayJob"])
def test_a_priority_is_that_of_the_job_in_a_queue_and_else_of_its_pods(
    kind: str, spec: dict[str, Any], of_job: str | None, of_pods: str | None
) -> None:
    engine = {"engine": {"workers": 2}} if kind == "RayJob" else {}
    _, job = rendered(resource(kind if kind != "RayJob" else "DatasetBuild", **engine, **spec)).create
    assert job["metadata"]["labels"].get("kueue.x-k8s.io/priority-class") == of_job
    pods = [template["spec"] for template in templates(job)]
    assert [pod.get("priorityClassName") for pod in pods] == [of_pods] * len(pods)


@pytest.mark.parametrize("kind", ["PretrainRun", "AlignmentRun"])
@pytest.mark.parametrize(
    ("topology", "annotation"),
    [
        ({"required": "example.com/rack"}, ("required", "example.com/rack")),
        ({"preferred": "example.com/rack"}, ("preferred", "example.com/rack")),
        ({"unconstrained": {}}, ("unconstrained", "true")),
    ],
)
def test_a_topology_is_the_one_wish_that_kueue_finds_on_the_pods(
    kind: str, topology: dict[str, Any], annotation: tuple[str, str]
) -> None:
    own = {"kueue.x-k8s.io/podset-preferred-topology": "zone", "linkerd.io/inject": "disabled"}
    template = {"metadata": {"annotations": {**own, "kueue.x-k8s.io/podset-required-topology": "zone"}}}
    document = resource(kind, queue="team-a", topology=topology, podTemplate=template)
    document["metadata"]["annotations"] = own
    _, job = rendered(document).create
    wish, level = annotation
    expected = {"linkerd.io/inject": "disabled", f"kueue.x-k8s.io/podset-{wish}-topology": level}
    assert job["spec"]["template"]["metadata"]["annotations"] == expected


TEN_OR_ELEVEN = {"steps": 10, "batch": {"tokens": 10 * 11 * 128}}
"""What as many nodes divide among themselves."""


@pytest.mark.parametrize("attempt", [1, 123456])
@pytest.mark.parametrize(
    ("kind", "spec", "longest"),
    [
        ("DatasetBuild", {}, 61),
        ("DatasetBuild", {"engine": {"workers": 1}}, 47),
        ("PretrainRun", {}, 61),
        ("PretrainRun", {"resources": {"nodes": 10}, "training": TEN_OR_ELEVEN}, 61),
        ("PretrainRun", {"resources": {"nodes": 11}, "training": TEN_OR_ELEVEN}, 60),
        ("AlignmentRun", {"resources": {"nodes": 4096}}, 58),
    ],
)
def test_a_name_that_is_too_long_for_an_object_is_cut_but_for_what_tells_attempts_apart(
    kind: str, spec: dict[str, Any], longest: int, attempt: int
) -> None:
    for name, shortest in (("n" * 52, longest), ("n-" * 25 + "nn", longest - 1)):
        for item in (lambda made: (*made.apply, *made.create))(rendered(resource(kind, name, **spec), attempt)):
            called = item["metadata"]["name"]
            assert shortest <= len(called) <= longest
            assert re.fullmatch(rf"n[n-]*n-(dsb|ptr|alr)-6f6b0b2e-{attempt}", called)
            assert item["metadata"]["labels"]["kindling.dev/name"] == name


@pytest.mark.parametrize("kind", SPECS)
def test_two_documents_of_one_name_share_nothing(kind: str) -> None:
    before, after = resource(kind, serve={}) if kind == "AlignmentRun" else resource(kind), resource(kind)
    after["metadata"]["uid"] = "0b5cbb9a-1a0e-4c0f-8f35-2f1b8e6c1d22"
    names, labels = [], []
    for document in (before, after):
        made = rendered(document)
        job = cleanup_job(SETTINGS, document, STORAGE, "models/0123456789abcdef")
        names.append({item["metadata"]["name"] for item in (*made.apply, *made.create, job)})
        labels.append([item["metadata"]["labels"] for item in (*made.apply, *made.create)])
    assert not names[0] & names[1]
    assert all(old.items() ^ new.items() for old in labels[0] for new in labels[1]), "no selector finds another's pods"


@pytest.mark.parametrize("kind", SPECS)
def test_every_pod_is_told_whose_run_file_it_must_be(kind: str) -> None:
    document = resource(kind)
    _, job = rendered(document).create
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    told = dict(itertools.pairwise(command))
    assert (told["--uid"], told["--key"]) == (UID, run_file(document).key)


def test_the_submitter_of_a_ray_job_is_told_it_too() -> None:
    document = resource("DatasetBuild", engine={"workers": 1})
    _, job = rendered(document).create
    command = job["spec"]["submitterPodTemplate"]["spec"]["containers"][0]["command"]
    told = dict(itertools.pairwise(command))
    assert (told["--uid"], told["--key"]) == (UID, run_file(document).key)
    assert job["spec"]["jobId"] == job["metadata"]["name"] == "x-dsb-6f6b0b2e-1"


def test_a_folder_as_a_store_is_refused_on_a_cluster() -> None:
    said = "spec.storage.uri: found file:///data; allowed: s3://bucket/prefix"
    with pytest.raises(SpecError, match=said):
        rendered(resource("PretrainRun", storage={"uri": "file:///data"}))


def test_the_submitter_has_no_credentials_and_the_nodes_of_ray_have() -> None:
    _, job = rendered(resource("DatasetBuild", engine={"workers": 1})).create
    cluster = job["spec"]["rayClusterSpec"]
    nodes = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]
    has = [
        (secrets_of(template), CREDENTIALS_VARIABLE in str(template["spec"]["containers"][0]["env"]))
        for template in (job["spec"]["submitterPodTemplate"], *nodes)
    ]
    assert has == [([], False), (["minio", "minio"], True), (["minio", "minio"], True)]


LAKE = {"uri": "s3://lake/a", "storage": {"endpoint": "https://lake.example.org", "credentialsSecret": "lake"}}
"""A source on a server of its own."""


@pytest.mark.parametrize("workers", [0, 2])
def test_the_pods_that_read_sources_have_the_keys_of_their_servers_beside_that_of_the_products(workers: int) -> None:
    own = {"uri": "s3://raw/b", "storage": {"credentialsSecret": "minio"}}
    _, job = rendered(resource("DatasetBuild", engine={"workers": workers}, sources=[LAKE, own, LAKE])).create
    submitter = [job["spec"].pop("submitterPodTemplate")] if workers else []
    assert len(templates(job)) == (2 if workers else 1)
    for template in templates(job):
        environment = {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}
        assert environment[SOURCE_CREDENTIALS_VARIABLE] == SOURCE_CREDENTIALS_FOLDER
        assert environment[CREDENTIALS_VARIABLE] == CREDENTIALS_FOLDER
        assert secrets_of(template) == ["minio", "minio"]
        for name in ("lake", "minio"):
            assert secrets_of(template, f"{SOURCE_CREDENTIALS_FOLDER}/{name}") == [name, name]
        volumes = [volume["name"] for volume in template["spec"]["volumes"]]
        assert len(set(volumes)) == len(volumes)
    assert all("credentials" not in str(template) for template in submitter)


@pytest.mark.parametrize(
    ("kind", "spec"), [*((kind, {}) for kind in SPECS), ("DatasetBuild", {"engine": {"workers": 2}})], ids=str
)
def test_the_pods_that_may_read_the_hub_have_its_address_and_the_token(kind: str, spec: dict[str, Any]) -> None:
    settings = SETTINGS.model_copy(update={"hugging_face": HuggingFace(endpoint="https://hub.example.com")})
    document = resource(kind, huggingFace={"tokenSecret": "minio"}, **spec)  # another key of a Secret in use
    _, job = render(settings, document, run_file(document)).create
    submitter = [job["spec"].pop("submitterPodTemplate")] if spec else []
    for template in templates(job):
        environment = {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}
        assert environment["HF_ENDPOINT"] == "https://hub.example.com"
        assert environment["HF_TOKEN_PATH"] == f"{HUB_FOLDER}/token"
        assert environment["HOME"] == "/tmp" and "HF_HOME" not in environment, "the cache can be written"
        (volume,) = [one for one in template["spec"]["volumes"] if one["name"] == "hugging-face"]
        token = {"name": "minio", "items": [{"key": "token", "path": "token"}]}
        assert volume["projected"]["sources"] == [{"secret": token}]
        assert (secrets_of(template, HUB_FOLDER), secrets_of(template)) == (["minio"], ["minio", "minio"])
    cleanup = cleanup_job(settings, document, STORAGE, "models/0123456789abcdef")
    assert all("HF_" not in str(item) for item in (*submitter, cleanup))


@pytest.mark.parametrize("kind", SPECS)
def test_without_a_token_and_a_hub_of_its_own_pods_hear_nothing_of_the_hub(kind: str) -> None:
    assert "HF_" not in str(rendered(resource(kind)).create)


@pytest.mark.parametrize("kind", ["PretrainRun", "AlignmentRun"])
def test_the_pods_of_a_run_have_the_key_of_its_tracker_in_a_file_and_the_key_of_the_run_is_the_same(kind: str) -> None:
    document = resource(kind, tracking={"wandb": {"project": "p", "keySecret": "minio"}})
    _, job = rendered(document).create
    for template in templates(job):
        environment = {one["name"]: one["value"] for one in template["spec"]["containers"][0]["env"]}
        assert environment["KINDLING_TRACKING_KEY"] == f"{TRACKING_FOLDER}/key"
        assert secrets_of(template, TRACKING_FOLDER) == ["minio"]
    assert run_file(document).key == run_file(resource(kind)).key
    assert TRACKING_FOLDER not in str(cleanup_job(SETTINGS, document, STORAGE, "models/0123456789abcdef"))


def test_only_the_keys_of_a_secret_that_are_needed_are_in_a_pod() -> None:
    _, job = rendered(resource("DatasetBuild", sources=[LAKE])).create
    (volume,) = [one for one in job["spec"]["template"]["spec"]["volumes"] if one["name"] == "source-lake"]
    keys = [[item["key"] for item in one["secret"]["items"]] for one in volume["projected"]["sources"]]
    assert keys == [["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], ["AWS_SESSION_TOKEN"]]


def test_who_deletes_a_dataset_has_no_key_of_its_sources() -> None:
    job = cleanup_job(SETTINGS, resource("DatasetBuild", sources=[LAKE]), STORAGE, "datasets/0123456789abcdef")
    assert "lake" not in str(job)


def secrets_of(template: dict[str, Any], folder: str = CREDENTIALS_FOLDER) -> list[str]:
    """The Secrets whose files a pod has at a place, as a rule that for the store's key."""
    mounts = template["spec"]["containers"][0]["volumeMounts"]
    at = [mount["name"] for mount in mounts if mount["mountPath"] == folder]
    volumes = [volume["projected"]["sources"] for volume in template["spec"]["volumes"] if volume["name"] in at]
    return [source["secret"]["name"] for sources in volumes for source in sources]


def test_a_clean_up_takes_its_arguments_literally() -> None:
    storage = StorageSpec(uri="s3://llm", endpoint="http://$(AWS_SECRET_ACCESS_KEY)", credentials_secret="minio")
    job = cleanup_job(SETTINGS, resource("PretrainRun"), storage, "models/0123456789abcdef")
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    place, *others = command[3:]
    assert "http://$$(AWS_SECRET_ACCESS_KEY)" in place
    assert others == ["--prefix=models/0123456789abcdef", "--name=PretrainRun/team/x", f"--uid={UID}", "--log=json"]
    assert "ownerReferences" not in job["metadata"]


TAINTED = Pods(
    node_selector={"pool": "ml"},
    tolerations=(Toleration(key="dedicated", value="ml", effect="NoSchedule"),),
    carried_labels=("cost-center", "kueue.x-k8s.io/", "kindling.dev/"),
    carried_annotations=("sidecar.istio.io/inject",),
)


def templates(tree: Any) -> list[dict[str, Any]]:
    """The pods' templates in an object."""
    if isinstance(tree, list):
        return [found for item in tree for found in templates(item)]
    if not isinstance(tree, dict):
        return []
    below = [found for item in tree.values() for found in templates(item)]
    return [tree, *below] if "containers" in tree.get("spec", {}) else below


@pytest.mark.parametrize(
    ("kind", "spec"), [*((kind, {}) for kind in SPECS), ("DatasetBuild", {"engine": {"workers": 2}})], ids=str
)
def test_all_pods_go_where_the_installation_wants_them_and_carry_what_it_lets_through(
    kind: str, spec: dict[str, Any]
) -> None:
    document = resource(kind, **spec)
    document["metadata"]["labels"] = {
        "cost-center": "7",
        "app": "payments",
        "kueue.x-k8s.io/priority-class": "high",
        "kueue.x-k8s.io/queue-name": "another",
        "kindling.dev/attempt": "99",
    }
    document["metadata"]["annotations"] = {"sidecar.istio.io/inject": "false", "sidecar.istio.io/proxyImage": "mine"}
    settings = SETTINGS.model_copy(update={"pods": TAINTED})
    _, job = render(settings, document, run_file(document)).create
    found = templates(job)
    assert found
    for thing in (job, *found):
        labels = thing["metadata"]["labels"]
        assert (labels["cost-center"], labels["kueue.x-k8s.io/priority-class"]) == ("7", "high")
        assert labels.keys().isdisjoint({"app", "kueue.x-k8s.io/queue-name"})
        assert labels["kindling.dev/attempt"] == "1"
        assert thing["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    for pod in (*found, *templates(cleanup_job(settings, document, STORAGE, "models/1"))):
        assert pod["spec"]["nodeSelector"] == {"pool": "ml"}
        assert pod["spec"]["tolerations"][0]["key"] == "dedicated"


@pytest.mark.parametrize("cidr", ["10.0.0.1/8", "10.0.0.0", "example.com", "10.0.0.0/33"])
def test_a_block_of_addresses_that_is_none_is_no_setting(cidr: str) -> None:
    with pytest.raises(ValidationError, match=r"cidrs"):
        Egress(cidrs=(cidr,))


def test_a_run_may_narrow_where_its_pods_go_and_not_widen_it() -> None:
    document = resource("PretrainRun", resources={"nodeSelector": {"pool": "other", "gpu": "h100"}})
    _, job = render(SETTINGS.model_copy(update={"pods": TAINTED}), document, run_file(document)).create
    assert job["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "ml", "gpu": "h100"}


@pytest.mark.parametrize(
    ("kind", "nodes", "checkpoint", "seconds"),
    [
        pytest.param("PretrainRun", 1, None, 2638, id="by the model's size, before its first checkpoint"),
        pytest.param("PretrainRun", 4, None, 705, id="of which each machine writes its part"),
        pytest.param("PretrainRun", 1, {"seconds": 3.2}, 67, id="by what the newest checkpoint took"),
        pytest.param("AlignmentRun", 1, None, 60, id="the least, where the model is not known here"),
        pytest.param("AlignmentRun", 1, {"seconds": 100.0}, 260, id="until its first checkpoint is"),
    ],
)
def test_pods_have_time_to_save_and_to_say_so(
    kind: str, nodes: int, checkpoint: dict[str, Any] | None, seconds: int
) -> None:
    shape = {"model": {"preset": "llama-8b"}} if kind == "PretrainRun" else {}
    document = resource(kind, **shape, resources={"nodes": nodes})
    made = render(SETTINGS, document | {"status": {"checkpoint": checkpoint}}, run_file(document))
    job = made.create[-1]
    pod = job["spec"]["template"]["spec"]
    command = pod["containers"][0]["command"]
    assert command[command.index("--save-seconds") + 1] == str(seconds)
    assert pod["terminationGracePeriodSeconds"] == seconds + 15
