"""What Pod Security `restricted` demands, and what we demand beyond it, of any pod in any object."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

Object = dict[str, Any]

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
OUR_VOLUMES = {"configMap", "emptyDir", "projected"}
ENVIRONMENT = {
    "HOME": "/tmp",
    "RAY_USAGE_STATS_ENABLED": "0",
    "KINDLING_CREDENTIALS": "/etc/kindling-credentials",
    "KINDLING_SOURCE_CREDENTIALS": "/etc/kindling-source-credentials",
    "HF_ENDPOINT": "https://hub.example.com",
    "HF_TOKEN_PATH": "/etc/kindling-hugging-face/token",
}
"""All that is ever passed by value."""
SECRET_FILES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "token"}
SECRET_VARIABLES = {"KINDLING_API_KEY"}


@pytest.fixture(scope="session")
def violations() -> Callable[[Object], list[str]]:
    """`violations(object)`: one line for each thing that a pod of it may not be."""
    return lambda item: [line for spec in pod_specs(item) for line in (*_restricted(spec), *_ours(spec))]


@pytest.fixture(scope="session")
def restricted() -> Callable[[Object], list[str]]:
    """`restricted(object)`: the same of Pod Security alone, which holds for pods with a template, too."""
    return lambda item: [line for spec in pod_specs(item) for line in _restricted(spec)]


@pytest.fixture(scope="session")
def pods() -> Callable[[Object], list[Object]]:
    """`pods(object)`: the specs of all pods that an object describes."""
    return lambda item: list(pod_specs(item))


def pod_specs(value: Any) -> Iterator[Object]:
    """Every pod's spec inside an object, however deep."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pod_specs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pod_specs(inner)


def _containers(spec: Object) -> list[Object]:
    return [one for field in ("initContainers", "containers", "ephemeralContainers") for one in spec.get(field, ())]


def _restricted(spec: Object) -> Iterator[str]:
    """Kubernetes 1.34, https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    pod = spec.get("securityContext", {})
    yield from (f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field))
    for volume in spec.get("volumes", ()):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            yield f"volume {volume['name']} is {kinds}"
    for field in ("sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile", "supplementalGroups"):
        if field in pod:
            yield f"the pod has {field}"
    for container in _containers(spec):
        yield from (f"{container['name']}: {line}" for line in _restricted_container(container, pod))


def _restricted_container(container: Object, pod: Object) -> Iterator[str]:
    own = container.get("securityContext", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield f"capabilities {capabilities}"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot"
    if 0 in (own.get("runAsUser", 1), pod.get("runAsUser", 1)):
        yield "runAsUser 0"
    if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") != "RuntimeDefault":
        yield "seccompProfile"
    if {"seLinuxOptions", "windowsOptions", "appArmorProfile", "procMount"} & set(own):
        yield "options of the kernel"
    if any("hostPort" in port for port in container.get("ports", ())):
        yield "a hostPort"
    if "lifecycle" in container:
        yield "a hook, which may name a host"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if "host" in container.get(probe, {}).get("httpGet", {}) or "tcpSocket" in container.get(probe, {}):
            yield f"{probe} may name a host"


def _ours(spec: Object) -> Iterator[str]:
    """No identity, one container, volumes of ours, a root file system that stays as it is, amounts, no secret by
    value."""
    yield from _our_pod(spec)
    for container in _containers(spec):
        if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
            yield "a writable root file system"
        for side in ("requests", "limits"):
            if not {"cpu", "memory"} <= set(container.get("resources", {}).get(side, {})):
                yield f"no {side}"
        if "envFrom" in container:
            yield "envFrom"
        yield from _environment(container.get("env", ()))


def _our_pod(spec: Object) -> Iterator[str]:
    if {"serviceAccountName", "serviceAccount"} & set(spec) or spec.get("automountServiceAccountToken") is not False:
        yield "a service account"
    if {"hostAliases", "dnsConfig", "nodeName", "priorityClassName", "runtimeClassName"} & set(spec):
        yield "what a user has no say in"
    if not {kind for volume in spec.get("volumes", ()) for kind in volume} <= {"name", *OUR_VOLUMES}:
        yield "a volume of another kind"
    if len(_containers(spec)) != 1:
        yield f"{len(_containers(spec))} containers"
    for volume in spec.get("volumes", ()):
        for source in volume.get("projected", {}).get("sources", ()):
            items = source.get("secret", {}).get("items", ())
            if set(source) != {"secret"} or not items or not {item["key"] for item in items} <= SECRET_FILES:
                yield f"volume {volume['name']} is more than the keys that are needed"


def _environment(variables: Sequence[Object]) -> Iterator[str]:
    for variable in variables:
        name = variable["name"]
        if "value" in variable:
            if ENVIRONMENT.get(name) != variable["value"]:
                yield f"{name} by value"
        elif name not in SECRET_VARIABLES or list(variable["valueFrom"]) != ["secretKeyRef"]:
            yield f"{name} from {variable['valueFrom']}"
