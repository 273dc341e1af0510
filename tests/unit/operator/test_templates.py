"""How an installation's pod template and a document's become one, and which pods get what of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hostile_pods import SPECS, WORKERS, Object, objects, pods

from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_operator.render.templates import FOR_HELPERS, merged
from kindling_operator.settings import Allowed, Images, Settings

IMAGES = Images(trainer="trainer:1", dataprep="dataprep:1", serve="serve:1", pull_secrets=("registry",))
ALLOWED = Allowed(
    env=("A", "B"), env_from=("team",), priority_classes=("high",), service_accounts=("reads-lake",),
    schedulers=("gangs",), runtime_classes=("gvisor",), host_network=True,
)  # fmt: skip
FULL: Object = {
    "metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}},
    "env": [{"name": "A", "value": "$(HOME)"}, {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    "envFrom": [{"configMapRef": {"name": "team"}}],
    "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}],
    "volumeMounts": [{"name": "cache", "mountPath": "/mnt/cache"}],
    "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "rack"}]}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "high",
    "schedulerName": "gangs",
    "serviceAccountName": "reads-lake",
    "runtimeClassName": "gvisor",
    "imagePullSecrets": [{"name": "registry"}, {"name": "mine"}],
    "hostNetwork": True,
    "sharedMemory": "16Gi",
    "ephemeralStorage": "100Gi",
    "extendedResources": {"rdma/hca": 1},
}


def template(written: Object) -> PodTemplate:
    """As a document or the chart has it."""
    return PodTemplate.model_validate_json(json.dumps(written))


def made(kind: str, wish: Object | None, installed: Object | None = None, **spec: Any) -> list[Object]:
    """The pods of a document: of its attempt, of what serves its model, and of its clean-up, which comes last."""
    settings = Settings(images=IMAGES, pod_template=template(installed or {}), allow=ALLOWED)
    asked = SPECS[kind] | spec | ({"podTemplate": wish} if wish is not None else {})
    return [pod for item in objects(kind, asked, settings) for pod in pods(item)]


def test_the_example_has_every_field() -> None:
    assert set(FULL) == {field.alias for field in PodTemplate.model_fields.values()}


@pytest.mark.parametrize(
    ("kind", "spec", "helpers"),
    [
        ("PretrainRun", {}, [False, True]),  # the Job, the clean-up
        ("AlignmentRun", {}, [False, True, True]),  # the Job, what serves, the clean-up
        ("DatasetBuild", {}, [False, True]),
        ("DatasetBuild", WORKERS, [True, False, False, True]),  # Ray's submitter, head and workers, the clean-up
    ],
    ids=str,
)
@pytest.mark.parametrize("whose", ["the document's", "the installation's"])
def test_pods_that_work_get_all_of_a_template_and_others_who_they_are(
    kind: str, spec: Object, helpers: list[bool], whose: str
) -> None:
    found = made(kind, FULL, **spec) if whose == "the document's" else made(kind, None, FULL, **spec)
    for pod, before, helps in zip(found, made(kind, None, **spec), helpers, strict=True):
        assert has_of(pod, before) == (
            {PodTemplate.model_fields[name].alias for name in FOR_HELPERS} if helps else set(FULL)
        )


def has_of(pod: Object, before: Object) -> set[str]:
    """What of FULL is in a pod."""
    spec, (container,), (plain,) = pod["spec"], pod["spec"]["containers"], before["spec"]["containers"]
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    amounts = container["resources"]["limits"]
    facts = {
        "metadata": pod["metadata"].get("annotations") == FULL["metadata"]["annotations"],
        "env": container["env"][len(plain["env"]) :][0] == {"name": "A", "value": "$$(HOME)"},
        "envFrom": container.get("envFrom") == [{"configMapRef": {"name": "team", "optional": False}}],
        "volumes": "cache" in volumes and spec["securityContext"].get("fsGroup") == 65532,
        "volumeMounts": container["volumeMounts"][-1]["mountPath"] == "/mnt/cache",
        "affinity": "podAffinity" in spec.get("affinity", {}),
        "imagePullSecrets": spec["imagePullSecrets"] == [{"name": "registry"}, {"name": "mine"}],
        "hostNetwork": (spec.get("hostNetwork"), spec.get("dnsPolicy")) == (True, "ClusterFirstWithHostNet"),
        "sharedMemory": volumes["shared-memory"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"},
        "ephemeralStorage": amounts.get("ephemeral-storage") == "100Gi",
        "extendedResources": amounts.get("rdma/hca") == "1" == container["resources"]["requests"].get("rdma/hca"),
        "topologySpreadConstraints": bool(spec.get("topologySpreadConstraints")),
    }
    names = ("priorityClassName", "schedulerName", "serviceAccountName", "runtimeClassName")
    return {field for field, holds in facts.items() if holds} | {name for name in names if spec.get(name) == FULL[name]}


def test_a_term_about_pods_means_those_of_the_attempt_and_the_product_spreads_them_still() -> None:
    pod, _ = made("PretrainRun", FULL)
    own = {"matchLabels": pod["metadata"]["labels"]}
    (term,) = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    (constraint,) = pod["spec"]["topologySpreadConstraints"]
    assert (term, constraint["labelSelector"]) == ({"topologyKey": "rack", "labelSelector": own}, own)
    assert (
        pod["spec"]["affinity"]["podAntiAffinity"]
        == made("PretrainRun", None)[0]["spec"]["affinity"]["podAntiAffinity"]
    )


@pytest.mark.parametrize(
    ("under", "over", "both"),
    [
        ({"priorityClassName": "low"}, {}, {"priorityClassName": "low"}),
        ({"priorityClassName": "low"}, {"priorityClassName": "high"}, {"priorityClassName": "high"}),
        ({"hostNetwork": True}, {"hostNetwork": False}, {"hostNetwork": False}),
        (
            {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}]},
            {"env": [{"name": "A", "value": "2"}]},
            {"env": [{"name": "A", "value": "2"}, {"name": "B", "value": "1"}]},
        ),
        (
            {"metadata": {"labels": {"a": "1", "b": "1"}}},
            {"metadata": {"labels": {"a": "2"}, "annotations": {"c": "1"}}},
            {"metadata": {"labels": {"a": "2", "b": "1"}, "annotations": {"c": "1"}}},
        ),
        (
            {"volumes": [{"name": "a", "emptyDir": {}}], "volumeMounts": [{"name": "a", "mountPath": "/mnt/a"}]},
            {"volumes": [{"name": "b", "emptyDir": {}}], "volumeMounts": [{"name": "b", "mountPath": "/mnt/b"}]},
            {
                "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "emptyDir": {}}],
                "volumeMounts": [{"name": "a", "mountPath": "/mnt/a"}, {"name": "b", "mountPath": "/mnt/b"}],
            },
        ),
        (
            {"envFrom": [{"secretRef": {"name": "a"}}], "imagePullSecrets": [{"name": "a"}]},
            {"envFrom": [{"secretRef": {"name": "b"}}], "imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
            {
                "envFrom": [{"secretRef": {"name": "a"}}, {"secretRef": {"name": "b"}}],
                "imagePullSecrets": [{"name": "a"}, {"name": "b"}],
            },
        ),
        (
            {"affinity": {"nodeAffinity": {}, "podAffinity": {}}},
            {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]}}},
            {
                "affinity": {
                    "nodeAffinity": {},
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}]},
                }
            },
        ),
        (
            {"extendedResources": {"rdma/hca": 1, "example.com/x": 1}},
            {"extendedResources": {"rdma/hca": 2}},
            {"extendedResources": {"rdma/hca": 2, "example.com/x": 1}},
        ),
        (
            {"topologySpreadConstraints": FULL["topologySpreadConstraints"]},
            {"topologySpreadConstraints": []},
            {"topologySpreadConstraints": FULL["topologySpreadConstraints"]},
        ),
    ],
    ids=lambda part: str(part)[:40],
)
def test_two_templates_become_one_by_keys_and_the_documents_goes_before(
    under: Object, over: Object, both: Object
) -> None:
    assert merged(template(under), template(over)).document() == template(both).document()
