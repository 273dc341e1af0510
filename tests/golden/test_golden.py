"""What is rendered, in full: the files beside this one. `make golden` writes them anew; read the difference."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kindling_api.documents import load, parse
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render import render
from kindling_operator.render.cleanup import cleanup_job
from kindling_operator.render.manifests import manifests, text_of
from kindling_operator.render.serving import serving_objects
from kindling_operator.settings import Allowed, CaBundle, Egress, HuggingFace, Images, Pods, Settings
from kindling_operator.world import Object

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
STORAGE = StorageSpec(uri="s3://llm/products", endpoint="http://minio.minio:9000", credentials_secret="minio")
PLAIN = Settings(
    images=Images(trainer="kindling-trainer:1", dataprep="kindling-dataprep:1", serve="kindling-serve:1"),
    storage=STORAGE,
)
GUARDED = Settings(
    images=Images(
        trainer="registry.example.com/kindling-trainer:1",
        dataprep="registry.example.com/kindling-dataprep:1",
        serve="registry.example.com/kindling-serve:1",
        pull_policy="Always",
        pull_secrets=("registry",),
        allowed_prefixes=("registry.example.com/",),
    ),
    storage=STORAGE,
    namespace="ml-system",
    scraper_namespace="monitoring",
    lost_node_seconds=5,
)
RESOURCES: Object = {
    "nodes": 2,
    "processesPerNode": 8,
    "gpu": "nvidia.com/gpu",
    "cpu": "16",
    "memory": "200Gi",
    "nodeSelector": {"pool": "training"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}
PRETRAIN: Object = {"dataset": {"uri": "s3://llm/d"}, "model": {"preset": "llama-124m"}, "training": {"steps": 10}}
ALIGN: Object = {"base": {"uri": "s3://llm/m"}, "method": {"dpo": {}}, "data": [{"uri": "s3://llm/pairs.jsonl"}]}
BUILD: Object = {"sources": [{"uri": "s3://raw/books/*.jsonl"}]}
ELSEWHERE: Object = {
    "sources": [
        {"uri": "s3://lake/*.parquet", "storage": {"endpoint": "https://lake.example.org", "credentialsSecret": "lake"}}
    ]
}
OF_THE_HUB: Object = {
    "base": {"uri": "hf://me/tiny@0123456789abcdef0123456789abcdef01234567"},
    "method": {"sft": {}},
    "data": [{"uri": "hf://datasets/me/talks@76543210fedcba9876543210fedcba9876543210"}],
    "huggingFace": {"tokenSecret": "hugging-face"},
}
MIRRORED = PLAIN.model_copy(update={"hugging_face": HuggingFace(endpoint="https://hub.example.com")})
TEMPLATED = GUARDED.model_copy(
    update={
        "pod_template": PodTemplate.model_validate(
            {
                "env": ({"name": "HTTPS_PROXY", "value": "http://proxy:3128"},),
                "volumes": (
                    {"name": "datasets", "persistentVolumeClaim": {"claimName": "datasets", "readOnly": True}},
                ),
            }
        ),
        "egress": Egress(cidrs=("10.20.0.0/16", "169.254.0.0/16"), namespaces=("minio",)),
        "ca_bundle": CaBundle(config_map="company-ca"),
        "allow": Allowed(service_accounts=("reads-lake",), schedulers=("gangs",)),
    }
)
TEMPLATE: Object = {
    "metadata": {"annotations": {"sidecar.istio.io/inject": "false"}},
    "env": [{"name": "NCCL_SOCKET_IFNAME", "value": "eth0"}],
    "volumeMounts": [{"name": "datasets", "mountPath": "/mnt/datasets"}],
    "affinity": {
        "podAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "topology.kubernetes.io/zone"}]
        }
    },
    "serviceAccountName": "reads-lake",
    "schedulerName": "gangs",
    "sharedMemory": "16Gi",
    "ephemeralStorage": "50Gi",
    "extendedResources": {"rdma/hca": 1},
}
TOPOLOGY: Object = {"queue": "team-a", "topology": {"required": "cloud.provider.com/topology-rack"}}
GANGED = GUARDED.model_copy(
    update={
        "pods": Pods(
            carried_labels=("kai.scheduler/queue", "scheduling.x-k8s.io/pod-group"),
            carried_annotations=("scheduling.k8s.io/group-name", "scheduling.volcano.sh/queue-name"),
        ),
        "allow": Allowed(schedulers=("kai-scheduler", "scheduler-plugins-scheduler", "volcano")),
    }
)
GANG: Object = {
    "metadata": {
        "labels": {"scheduling.x-k8s.io/pod-group": "web", "kai.scheduler/queue": "research"},
        "annotations": {"scheduling.k8s.io/group-name": "web", "scheduling.volcano.sh/queue-name": "research"},
    },
    "schedulerName": "volcano",
}
OWN_IMAGE = {"image": "registry.example.com/mine:2"}
ANONYMOUS = {"storage": {"uri": "s3://open"}}


def document(kind: str, spec: Object, **metadata: str) -> Object:
    """A custom resource as the API server has it."""
    common = {"name": "web", "namespace": "team-a", "uid": "6f6b0b2e-8d1c-4d52-9f7e-0c8f5d8d6a11", **metadata}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": common, "spec": spec}


def attempt(resource: Object, settings: Settings, number: int = 1, avoided: tuple[str, ...] = ()) -> list[Object]:
    """The objects of one attempt. What the run file says, and its key, are not shown: other tests read them."""
    run_file = resolve(parse(resource), storage=STORAGE, finished={}, attempt=number)
    assert not isinstance(run_file, Waiting)
    rendered = render(settings, resource, run_file, avoided)
    return [*rendered.apply, *rendered.create]


def served(settings: Settings, **serve: Any) -> list[Object]:
    """What serves a finished AlignmentRun."""
    resource = document("AlignmentRun", {**ALIGN, "serve": serve})
    run = parse(resource)
    assert isinstance(run, AlignmentRun)
    return serving_objects(settings, resource, run, "s3://llm/products/models/0123456789abcdef/model", STORAGE)


def example(name: str) -> list[Object]:
    """The objects of an example, as `kindling render` prints them."""
    documents = [loaded.document for loaded in load([EXAMPLES / name])]
    return list(yaml.safe_load_all("".join(manifests(documents, PLAIN))))


CASES: dict[str, Callable[[], list[Object]]] = {
    "example-01-quickstart": lambda: example("01-quickstart"),
    "example-02-tinyshakespeare": lambda: example("02-tinyshakespeare"),
    "training-on-one-node": lambda: attempt(document("PretrainRun", PRETRAIN | ANONYMOUS), PLAIN),
    "training-on-gpus": lambda: attempt(document("PretrainRun", PRETRAIN | {"resources": RESOURCES}), GUARDED, 12),
    "training-in-a-queue": lambda: attempt(document("PretrainRun", PRETRAIN | {"queue": "team-a"}), PLAIN),
    "training-over-two-to-four-nodes": lambda: attempt(
        document("PretrainRun", PRETRAIN | {"resources": {"nodes": 4, "minNodes": 2}, "queue": "team-a"}), PLAIN
    ),
    "training-away-from-slow-nodes": lambda: attempt(
        document("PretrainRun", PRETRAIN | {"resources": RESOURCES}), PLAIN, 2, avoided=("worker-3", "worker-7")
    ),
    "training-in-a-topology": lambda: attempt(
        document("PretrainRun", PRETRAIN | {"resources": RESOURCES} | TOPOLOGY), GUARDED
    ),
    "training-with-a-gangs-template": lambda: attempt(
        document("PretrainRun", PRETRAIN | {"resources": RESOURCES, "podTemplate": GANG}), GANGED
    ),
    "training-with-a-template": lambda: attempt(
        document("PretrainRun", PRETRAIN | {"podTemplate": TEMPLATE}), TEMPLATED
    ),
    "alignment": lambda: attempt(document("AlignmentRun", ALIGN | OWN_IMAGE), GUARDED),
    "alignment-of-the-hub": lambda: attempt(document("AlignmentRun", OF_THE_HUB), MIRRORED),
    "dataset-in-one-pod": lambda: attempt(document("DatasetBuild", BUILD), PLAIN),
    "dataset-from-another-store": lambda: attempt(document("DatasetBuild", ELSEWHERE), PLAIN),
    "dataset-on-ray": lambda: attempt(document("DatasetBuild", BUILD | {"engine": {"workers": 2}}), PLAIN),
    "dataset-on-ray-in-a-queue": lambda: attempt(
        document("DatasetBuild", BUILD | {"engine": {"workers": 2}, "queue": "team-a"}), GUARDED
    ),
    "serving": lambda: served(GUARDED, replicas=2, apiKeySecret="key", resources={"cpu": "4", "memory": "8Gi"}),
    "serving-on-a-gpu": lambda: served(PLAIN, resources={"cpu": "4", "memory": "8Gi", "gpu": "nvidia.com/gpu"}),
    "cleanup": lambda: [cleanup_job(PLAIN, document("PretrainRun", PRETRAIN), STORAGE, "models/0123456789abcdef")],
}


def written(name: str) -> str:
    """The text of a golden file."""
    objects = CASES[name]()
    for item in objects:
        if item["kind"] == "ConfigMap":
            item["data"] = {"run.json": "(the run file)"}
    return re.sub(r"sha256:[0-9a-f]{64}", "(the key)", "---\n".join(map(text_of, objects)))


@pytest.mark.parametrize("name", CASES)
def test_what_is_rendered_is_what_was_read_before(name: str) -> None:
    assert (HERE / f"{name}.yaml").read_text(encoding="utf-8") == written(name), "run `make golden`, read what changed"


def test_no_file_is_left_over() -> None:
    assert {path.stem for path in HERE.glob("*.yaml")} == set(CASES)


@pytest.mark.parametrize("name", [name for name in CASES if "template" not in name])
def test_every_pod_passes_the_restricted_standard_and_ours(name: str, violations: Any, pods: Any) -> None:
    objects = CASES[name]()
    assert sum(len(pods(item)) for item in objects) >= 1
    assert [line for item in objects for line in violations(item)] == []


if __name__ == "__main__":
    for case in CASES:
        (HERE / f"{case}.yaml").write_text(written(case), encoding="utf-8")
    sys.exit()
