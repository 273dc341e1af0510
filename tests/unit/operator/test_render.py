"""One attempt as objects: what must hold beside what tests/golden shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kindling_api.documents import parse
from kindling_api.errors import SpecError
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.runfile import RunFile, read_run_file
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render import Rendered, render
from kindling_operator.render.attempt import attempt_name, longest_name
from kindling_operator.render.cleanup import cleanup_job
from kindling_operator.settings import Images, Settings

STORAGE = StorageSpec(uri="s3://llm", endpoint="http://minio:9000", credentials_secret="minio")
SETTINGS = Settings(images=Images(trainer="trainer:1", dataprep="dataprep:1", serve="serve:1"), storage=STORAGE)
SPECS: dict[str, dict[str, Any]] = {
    "DatasetBuild": {"sources": [{"uri": "builtin:python-stdlib"}]},
    "PretrainRun": {"dataset": {"uri": "s3://d"}, "model": {"preset": "llama-tiny"}, "training": {"steps": 10}},
    "AlignmentRun": {"base": {"uri": "s3://m"}, "method": {"sft": {}}, "data": [{"uri": "s3://chat.jsonl"}]},
}


def resource(kind: str, name: str = "x", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": "u-1"}
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
    assert read_run_file(tmp_path / "run.json") == run_file(document)


@pytest.mark.parametrize("kind", SPECS)
def test_what_may_change_in_a_run_does_not_change_its_run_file(kind: str) -> None:
    changed = resource(kind, suspend=True, activeDeadline="1h", ttlAfterFinished="1d")
    assert rendered(changed).create[0] == rendered(resource(kind)).create[0]


@pytest.mark.parametrize("kind", SPECS)
def test_everything_of_an_attempt_has_one_name_one_owner_and_one_set_of_labels(kind: str) -> None:
    objects = rendered(resource(kind), attempt=3)
    short = {"DatasetBuild": "dsb", "PretrainRun": "ptr", "AlignmentRun": "alr"}[kind]
    labels = {
        "app.kubernetes.io/managed-by": "kindling",
        "kindling.dev/kind": kind,
        "kindling.dev/name": "x",
        "kindling.dev/attempt": "3",
    }
    for item in (*objects.apply, *objects.create):
        metadata = item["metadata"]
        assert (metadata["name"], metadata["namespace"], metadata["labels"]) == (f"x-{short}-3", "team", labels)
        assert [(one["kind"], one["uid"], one["controller"]) for one in metadata["ownerReferences"]] == [
            (kind, "u-1", True)
        ]


@pytest.mark.parametrize("spec", [{}, {"resources": {"nodes": 4}}], ids=["one node", "four nodes"])
def test_attempts_differ_in_their_number_alone(spec: dict[str, Any]) -> None:
    first, second = (rendered(resource("PretrainRun", **spec), attempt=number) for number in (1, 2))
    text = json.dumps([second.apply, second.create]).replace("x-ptr-2", "x-ptr-1")
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


@pytest.mark.parametrize(
    ("kind", "spec", "longest"),
    [
        ("DatasetBuild", {}, 52),
        ("DatasetBuild", {"engine": {"workers": 1}}, 38),
        ("PretrainRun", {}, 52),
        ("PretrainRun", {"resources": {"nodes": 8}}, 52),
        ("PretrainRun", {"resources": {"nodes": 16}}, 51),
        ("AlignmentRun", {"resources": {"nodes": 4096}}, 49),
    ],
)
def test_a_name_is_refused_that_an_object_could_not_have(kind: str, spec: dict[str, Any], longest: int) -> None:
    fits = resource(kind, "n" * longest, **spec)
    assert longest_name(run_file(fits)) == longest
    _, job = rendered(fits, attempt=9999).create
    pods = spec.get("resources", {}).get("nodes", 1)
    limit = 47 if job["kind"] == "RayJob" else 63 - len(f"-{pods - 1}")
    assert len(job["metadata"]["name"]) <= limit
    if longest < 52:
        with pytest.raises(SpecError, match=rf"metadata.name: found n+ \({longest + 1} characters\); allowed: at most"):
            rendered(resource(kind, "n" * (longest + 1), **spec))


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        (
            "7b-chat",
            {},
            "metadata.name: found 7b-chat; allowed: a name that begins with a letter.*`run-7b-chat`",
        ),
        (
            "x",
            {"storage": {"uri": "file:///data"}},
            "spec.storage.uri: found file:///data; allowed: s3://bucket/prefix",
        ),
    ],
)
def test_what_runs_on_one_machine_but_not_on_a_cluster_is_refused(name: str, spec: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        rendered(resource("PretrainRun", name, **spec))


def test_a_name_is_the_same_whenever_it_is_asked_for() -> None:
    assert attempt_name("PretrainRun", "tiny", 12) == "tiny-ptr-12"


def test_the_submitter_has_no_credentials_and_the_nodes_of_ray_have() -> None:
    _, job = rendered(resource("DatasetBuild", engine={"workers": 1})).create
    cluster = job["spec"]["rayClusterSpec"]
    nodes = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]
    secrets = [
        sum("valueFrom" in variable for variable in template["spec"]["containers"][0]["env"])
        for template in (job["spec"]["submitterPodTemplate"], *nodes)
    ]
    assert secrets == [0, 3, 3]


def test_a_clean_up_takes_its_arguments_literally() -> None:
    storage = StorageSpec(uri="s3://llm", endpoint="http://$(AWS_SECRET_ACCESS_KEY)", credentials_secret="minio")
    job = cleanup_job(SETTINGS, resource("PretrainRun"), storage, "models/0123456789abcdef")
    command = job["spec"]["template"]["spec"]["containers"][0]["command"]
    place, *others = command[3:]
    assert "http://$$(AWS_SECRET_ACCESS_KEY)" in place
    assert others == ["--prefix=models/0123456789abcdef", "--name=PretrainRun/team/x"]
    assert "ownerReferences" not in job["metadata"]
