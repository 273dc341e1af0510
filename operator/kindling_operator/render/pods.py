"""What every pod is: one container of ours, without privileges, with its run file.

Everything here passes Pod Security `restricted`. A spec of a user chooses amounts, nodes and (from the installation's
list) the image; the shape of the pod is written down here, and `templates.py` adds to it what the installation allows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kindling_api.bounds import POD_GRACE_SECONDS
from kindling_api.v1alpha1.resources import MUTABLE_FIELDS, Toleration
from kindling_api.v1alpha1.runfile import PROGRESS_PORT
from kindling_operator.render.attempt import Attempt
from kindling_operator.render.secrets import MountedSecret
from kindling_operator.render.templates import USER
from kindling_operator.settings import Settings
from kindling_operator.world import Object

RUN_FOLDER = "/etc/kindling"
RUN_FILE = "run.json"
CA_FOLDER, CA_FILE = "/etc/kindling-ca-bundle", "ca.crt"
CA_VARIABLES = ("AWS_CA_BUNDLE", "SSL_CERT_FILE")
"""Where botocore looks, and where OpenSSL and httpx do, which the Hub's library asks with."""
LAST_WORD = "/dev/termination-log"
"""Where Kubernetes takes a pod's termination message from."""

PROGRESS = {"name": "progress", "containerPort": PROGRESS_PORT}
"""Not of Ray's nodes: KubeRay finds Ray's own ports only on a head that declares none, or all of them."""


@dataclass(frozen=True)
class Container:
    """What differs from pod to pod."""

    image: str
    resources: Object
    command: tuple[str, ...] = ()
    """Empty where KubeRay writes it, as for Ray's nodes."""
    run_file: str | None = None
    """The ConfigMap that holds it."""
    secrets: tuple[MountedSecret, ...] = ()
    """What it has in files, beside the run file."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside what every container has."""


def run_file_map(attempt: Attempt) -> Object:
    """The ConfigMap with the run file.

    Fields that a user may change in the course of a run are left out: they are the operator's business, and so an
    attempt's file says the same whenever it is rendered.
    """
    document = attempt.run.document()
    for name in MUTABLE_FIELDS:
        document["spec"].pop(name, None)
    text = json.dumps(document, indent=2, sort_keys=True)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": attempt.metadata(),
        "immutable": True,
        "data": {RUN_FILE: text + "\n"},
    }


def program(attempt: Attempt, module: str, *options: str) -> tuple[str, ...]:
    """The command of a program that reads the run file, serves its progress, and leaves a last word.

    It is told whose run file that must be: a kubelet keeps an immutable ConfigMap, by its name, for as long as any pod
    of its node refers to it, and so may mount one that has been deleted.
    """
    run, run_file = attempt.run, f"{RUN_FOLDER}/{RUN_FILE}"
    whose = (*(("--uid", run.uid) if run.uid else ()), "--key", run.key)
    reports = ("--progress", LAST_WORD, "--serve", str(PROGRESS_PORT), "--log=json")
    return ("python", "-m", module, run_file, *whose, *reports, *options)


def pod_template(settings: Settings, metadata: Object, container: Container, **spec: Any) -> Object:
    """A pod with one container; `spec` has further fields of the pod's spec, or others in the place of these."""
    run_file = [] if container.run_file is None else [{"name": "run", "configMap": {"name": container.run_file}}]
    if settings.images.pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in settings.images.pull_secrets]
    if settings.pods.node_selector:
        spec["nodeSelector"] = {**spec.get("nodeSelector", {}), **settings.pods.node_selector}
    return {
        "metadata": metadata,
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": POD_GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "tolerations": tolerations(settings),
            **spec,
            "containers": [_container(settings, container)],
            "volumes": [
                {"name": "temporary", "emptyDir": {}},
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
                *run_file,
                *(secret.volume_object() for secret in container.secrets),
                *_authorities(settings),
            ],
        },
    }


def _container(settings: Settings, container: Container) -> Object:
    run_file = [{"name": "run", "mountPath": RUN_FOLDER, "readOnly": True}] if container.run_file else []
    folders = dict(secret.variable for secret in container.secrets)
    authorities = dict.fromkeys(CA_VARIABLES, f"{CA_FOLDER}/{CA_FILE}") if settings.ca_bundle is not None else {}
    variables = {"HOME": "/tmp", **container.environment, **folders, **authorities}
    command = [part.replace("$", "$$") for part in container.command]  # or Kubernetes puts variables in for $(NAME)
    return {
        "name": "kindling",
        "image": container.image,
        "imagePullPolicy": settings.images.pull_policy,
        **({"command": command, "ports": [PROGRESS]} if command else {}),
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "resources": container.resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePath": LAST_WORD,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # what ends without a last word leaves its log's end
        "volumeMounts": [
            {"name": "temporary", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *run_file,
            *(secret.mount() for secret in container.secrets),
            *({"name": one["name"], "mountPath": CA_FOLDER, "readOnly": True} for one in _authorities(settings)),
        ],
    }


def _authorities(settings: Settings) -> list[Object]:
    """The volume with the certificates of the installation's authorities, where it has its own."""
    bundle = settings.ca_bundle
    if bundle is None:
        return []
    return [
        {"name": "ca-bundle", "configMap": {"name": bundle.config_map, "items": [{"key": bundle.key, "path": CA_FILE}]}}
    ]


def hub_environment(settings: Settings) -> dict[str, str]:
    """What tells programs where the Hugging Face Hub is; what they fetch they keep below HOME."""
    hub = settings.hugging_face.endpoint
    return {"HF_ENDPOINT": hub} if hub is not None else {}


def fixed(cpu: str, memory: str, devices: Mapping[str, int] | None = None) -> Object:
    """Resources of which the limit is the request.

    Such a pod is the last to be evicted; it may get cores of its own from the kubelet; and since cores are limited,
    the threads that a program starts by looking at its limit are those that it has.
    """
    amounts = {"cpu": cpu, "memory": memory, **{name: str(count) for name, count in (devices or {}).items()}}
    return {"requests": dict(amounts), "limits": dict(amounts)}


def spread(labels: Mapping[str, str]) -> Object:
    """Pods of a run go to different nodes where there are some; rather than wait, they share one."""
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": dict(labels)}}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}


def away_from(template: Object, nodes: Sequence[str]) -> Object:
    """The template of a pod that goes to other nodes than these where others have room; rather than wait, to one of
    them. It is one wish more beside those in anybody's affinity."""
    if not nodes:
        return template
    fields = [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in nodes]  # one value each
    wish, wishes = (
        {"weight": 100, "preference": {"matchFields": fields}},
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    affinity = template["spec"].get("affinity", {})
    of_nodes = affinity.get("nodeAffinity", {})
    of_nodes = {**of_nodes, wishes: [*of_nodes.get(wishes, ()), wish]}
    return {**template, "spec": {**template["spec"], "affinity": {**affinity, "nodeAffinity": of_nodes}}}


def tolerations(settings: Settings, chosen: Sequence[Toleration] = ()) -> list[Object]:
    """The installation's, the chosen ones, and short ones for a node that does not answer, instead of Kubernetes' five
    minutes."""
    lost = [
        {
            "key": f"node.kubernetes.io/{taint}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": settings.lost_node_seconds,
        }
        for taint in ("not-ready", "unreachable")
    ]
    return [*(toleration.document() for toleration in (*settings.pods.tolerations, *chosen)), *lost]
