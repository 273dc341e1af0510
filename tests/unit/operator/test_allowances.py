"""What a document asks of its pods and the installation does not allow: field, what was asked, what is allowed, and who
can change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from kindling_api.documents import parse
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_operator.allowances import refusals
from kindling_operator.reserved import is_reserved_folder, is_reserved_label, reserved
from kindling_operator.settings import Allowed, Images, Pods, Settings


def template(written: dict[str, Any]) -> PodTemplate:
    """As the chart writes it."""
    return PodTemplate.model_validate_json(json.dumps(written))


IMAGES = Images(trainer="trainer:1", dataprep="dataprep:1", serve="serve:1")
CLOSED = Settings(images=IMAGES)
INSTALLED: dict[str, Any] = {
    "schedulerName": "gangs",
    "volumes": [{"name": "lake", "persistentVolumeClaim": {"claimName": "lake"}}],
    "volumeMounts": [{"name": "lake", "mountPath": "/mnt/lake"}],
}
OPEN = Settings(
    images=IMAGES,
    pods=Pods(carried_labels=("example.com/",)),
    pod_template=template(INSTALLED),
    allow=Allowed(
        env=("MINE", "HOME"),
        env_from=("team",),
        mount_paths=("/mnt/", "/etc/"),
        csi_drivers=("lake.example.com",),
        service_accounts=("reads-lake", "writes-lake"),
        priority_classes=("low",),
        runtime_classes=("gvisor",),
        host_network=True,
    ),
)
ASK = "To fix it: leave it out, or ask the installation's administrator to add it to runs.{} of the chart."
CACHE = {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}


def refused(wish: dict[str, Any], settings: Settings, kind: str = "PretrainRun") -> list[str]:
    """What is told of a document with this template."""
    spec: dict[str, Any] = {
        "dataset": {"uri": "s3://d"},
        "model": {"preset": "llama-tiny"},
        "training": {"steps": 1},
        "resources": {"gpu": "nvidia.com/gpu"},
        "podTemplate": wish,
    }
    document = parse({"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": {"name": "x"}, "spec": spec})
    return [sentence.removeprefix("spec.podTemplate.") for sentence in refusals(document.spec, settings)]


@pytest.mark.parametrize(
    ("wish", "sentence", "value"),
    [
        ({"serviceAccountName": "admin"}, "serviceAccountName: found admin", "allow.serviceAccounts"),
        ({"priorityClassName": "high"}, "priorityClassName: found high", "allow.priorityClasses"),
        ({"runtimeClassName": "none"}, "runtimeClassName: found none", "allow.runtimeClasses"),
        ({"schedulerName": "mine"}, "schedulerName: found mine", "allow.schedulers"),
        ({"metadata": {"labels": {"app": "web"}}}, "metadata.labels: found app", "pods.carriedLabels"),
        (
            {"metadata": {"annotations": {"sidecar.istio.io/proxyImage": "mine"}}},
            "metadata.annotations: found sidecar.istio.io/proxyImage",
            "pods.carriedAnnotations",
        ),
        ({"env": [{"name": "LD_PRELOAD", "value": "/mnt/x.so"}]}, "env[0].name: found LD_PRELOAD", "allow.env"),
        ({"envFrom": [{"secretRef": {"name": "all"}}]}, "envFrom[0].secretRef.name: found all", "allow.envFrom"),
        ({"envFrom": [{"configMapRef": {"name": "all"}}]}, "envFrom[0].configMapRef.name: found all", "allow.envFrom"),
        (
            {"volumes": [{"name": "x", "csi": {"driver": "host.example.com"}}]},
            "volumes[0].csi.driver: found host.example.com",
            "allow.csiDrivers",
        ),
        (
            {"volumes": [CACHE], "volumeMounts": [{"name": "cache", "mountPath": "/usr/lib/python3"}]},
            "volumeMounts[0].mountPath: found /usr/lib/python3",
            "allow.mountPaths",
        ),
    ],
    ids=lambda part: str(part)[:50],
)
def test_what_is_not_on_a_list_is_refused_with_the_list_and_who_keeps_it(
    wish: dict[str, Any], sentence: str, value: str
) -> None:
    for settings in (CLOSED, OPEN):
        (told,) = refused(wish, settings)
        assert told.startswith(f"{sentence}; allowed: ")
        assert told.endswith(ASK.format(value))


def test_the_list_is_told_and_where_there_is_none_that_is() -> None:
    wish = {"serviceAccountName": "admin"}
    assert "; allowed: reads-lake, writes-lake. " in refused(wish, OPEN)[0]
    assert "; allowed: none in this installation. " in refused(wish, CLOSED)[0]
    assert refused({"hostNetwork": True}, CLOSED) == [
        "hostNetwork: found true; allowed: false in this installation. To fix it: leave it out, or ask the "
        "installation's administrator to set runs.allow.hostNetwork of the chart."
    ]


@pytest.mark.parametrize(
    ("wish", "sentence"),
    [
        (
            {"env": [{"name": "HOME", "value": "/mnt"}]},
            "env[0].name: found HOME; allowed: variables that Kindling does",
        ),
        ({"volumes": [CACHE | {"name": "run"}]}, "volumes[0].name: found run; allowed: another name than those of"),
        ({"volumes": [CACHE | {"name": "lake"}]}, "volumes[0].name: found lake; allowed: names that no volume of the"),
        (
            {"volumeMounts": [{"name": "temporary", "mountPath": "/mnt/x"}]},
            "volumeMounts[0].name: found temporary; all",
        ),
        (
            {"volumeMounts": [{"name": "gone", "mountPath": "/mnt/x"}]},
            "volumeMounts[0].name: found gone; allowed: lake.",
        ),
        (
            {"volumeMounts": [{"name": "lake", "mountPath": "/etc/kindling/x"}]},
            "volumeMounts[0].mountPath: found /etc/kindling/x; allowed: folders outside of /dev",
        ),
        (
            {"volumeMounts": [{"name": "lake", "mountPath": "/mnt/lake/x"}]},
            "volumeMounts[0].mountPath: found /mnt/lake/x; allowed: folders in which the installation has mounted noth",
        ),
        (
            {"metadata": {"labels": {"kindling.dev/attempt": "9"}}},
            "metadata.labels: found kindling.dev/attempt; allowed: keys that do not begin with kindling.dev/",
        ),
        (
            {"extendedResources": {"nvidia.com/gpu": 8}},
            "extendedResources: found nvidia.com/gpu; allowed: devices beside those of spec.resources.gpu.",
        ),
    ],
    ids=lambda part: str(part)[:50],
)
def test_what_is_kindlings_own_or_the_installations_stays_so_whatever_is_allowed(
    wish: dict[str, Any], sentence: str
) -> None:
    assert refused(wish, OPEN)[0].startswith(sentence)


def test_what_is_allowed_passes_and_what_everybody_has_is_everybodys() -> None:
    wish = {
        "metadata": {"labels": {"example.com/team": "red"}},
        "env": [{"name": "MINE", "value": "1"}],
        "envFrom": [{"secretRef": {"name": "team"}}],
        "volumes": [CACHE, {"name": "fuse", "csi": {"driver": "lake.example.com"}}],
        "volumeMounts": [{"name": "cache", "mountPath": "/mnt/cache"}, {"name": "lake", "mountPath": "/mnt/also"}],
        "schedulerName": "gangs",
        "serviceAccountName": "reads-lake",
        "priorityClassName": "low",
        "runtimeClassName": "gvisor",
        "hostNetwork": True,
        "extendedResources": {"rdma/hca": 1},
    }
    assert refused(wish, OPEN) == []
    assert (
        refused({"sharedMemory": "1Gi", "ephemeralStorage": "1Gi", "env": [{"name": "TZ", "value": "UTC"}]}, CLOSED)
        == []
    )


@pytest.mark.parametrize(
    "wish",
    [
        {"env": [{"name": "KINDLING_CREDENTIALS", "value": "/mnt"}]},
        {"volumes": [CACHE | {"name": "credentials"}]},
        {"volumeMounts": [{"name": "cache", "mountPath": "/etc"}]},
    ],
    ids=str,
)
def test_an_installation_cannot_take_what_is_kindlings_either(wish: dict[str, Any]) -> None:
    with pytest.raises(
        ValidationError, match=r"podTemplate\..*To fix it: remove it from runs\.podTemplate of the chart"
    ):
        Settings(images=IMAGES, pod_template=template(wish))


def test_everything_that_pods_have_without_a_template_is_reserved() -> None:
    """Read from the golden files, so that whatever a pod gets in future is reserved with it."""
    golden = Path(__file__).parents[2] / "golden"
    plain = [path for path in golden.glob("*.yaml") if "template" not in path.stem]
    pods = [pod for path in plain for thing in yaml.safe_load_all(path.read_text()) for pod in pods_in(thing)]
    assert len(pods) > 10
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        taken = PodTemplate.model_construct(
            env=tuple(Named(name=one["name"]) for one in container["env"]),
            volumes=tuple(Named(name=one["name"]) for one in pod["spec"]["volumes"]),
        )
        assert len(list(reserved(taken))) == len(container["env"]) + len(pod["spec"]["volumes"])
        assert all(is_reserved_folder(one["mountPath"]) for one in container["volumeMounts"])
        assert all(is_reserved_label(key) for key in pod["metadata"]["labels"])


class Named(PodTemplate):
    """Something with a name."""

    name: str = ""


def pods_in(tree: Any) -> list[dict[str, Any]]:
    """Every template of a pod in an object."""
    if isinstance(tree, list):
        return [pod for item in tree for pod in pods_in(item)]
    if not isinstance(tree, dict):
        return []
    here = [tree] if "containers" in tree.get("spec", {}) else []
    return here + [pod for item in tree.values() for pod in pods_in(item)]


def test_a_priority_is_one_of_the_allowed_and_given_once() -> None:
    spec = {"sources": [{"uri": "s3://raw"}], "tokenizer": {"byte": {}}}

    def said(**fields: Any) -> list[str]:
        given = DatasetBuildSpec.model_validate({**spec, **fields}, strict=False)
        return [str(sentence) for sentence in refusals(given, OPEN)]

    assert said(priority="low") == said(priority="anything", queue="team-a") == []
    assert said(priority="high") == [f"spec.priority: found high; allowed: low. {ASK.format('allow.priorityClasses')}"]
    assert said(priority="low", podTemplate={"priorityClassName": "low"}) == [
        "spec.podTemplate.priorityClassName: found low; allowed: nothing beside spec.priority. "
        "To fix it: leave one of them out."
    ]
