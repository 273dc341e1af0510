"""Whatever a document asks of its pods: they are as without it, and besides what the installation allows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import hostile_pods
import pytest
from hostile_pods import Object
from hypothesis import event, given, settings
from hypothesis import strategies as st

from kindling_api.errors import SpecError
from kindling_operator.settings import Settings

INSTALLATIONS = hostile_pods.installations()
Violations = Callable[[Object], list[str]]
cases = given(document=hostile_pods.documents(), number=st.integers(0, len(INSTALLATIONS) - 1))


@settings(max_examples=1000)
@cases
@pytest.mark.slow
def test_a_template_takes_nothing_from_a_pod_and_adds_only_what_is_allowed(
    document: tuple[str, Object, Object], number: int, restricted: Violations
) -> None:
    check(document, number, restricted)


@settings(max_examples=100_000)
@cases
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_a_hundred_thousand_templates_do(
    document: tuple[str, Object, Object], number: int, restricted: Violations
) -> None:
    check(document, number, restricted)


def check(document: tuple[str, Object, Object], number: int, restricted: Violations) -> None:
    kind, spec, wish = document
    installation = INSTALLATIONS[number]
    try:
        made = list(hostile_pods.objects(kind, {**spec, "podTemplate": wish}, installation))
    except SpecError as error:
        event("refused")
        assert "spec.podTemplate" in str(error)
        return
    event("accepted")
    found = [pod for item in made for pod in hostile_pods.pods(item)]
    plain = hostile_pods.without_template(kind, "engine" in spec, number)
    assert len(found) == len(plain) >= 2
    for pod, before in zip(found, plain, strict=True):
        host = installation.allow.host_network and wish.get("hostNetwork")
        assert [line for line in restricted(pod) if not (host and line == "hostNetwork is set")] == []
        assert list(differences(pod, before, installation)) == []


MEMORY = {"emptyDir": {"medium": "Memory"}}
WITH_A_LIST = {
    "priorityClassName": "priority_classes",
    "schedulerName": "schedulers",
    "serviceAccountName": "service_accounts",
    "runtimeClassName": "runtime_classes",
}


def differences(pod: Object, before: Object, installation: Settings) -> Iterator[str]:
    """What a pod lost, or has that nobody allowed."""
    (container,), (plain,) = pod["spec"]["containers"], before["spec"]["containers"]
    yield from _of_pod(pod["spec"], before["spec"], installation)
    yield from _of_container(container, plain, installation)
    labels, old = pod["metadata"]["labels"], before["metadata"]["labels"]
    if labels | old != labels or any(not key.startswith("example.com/") for key in set(labels) - set(old)):
        yield f"labels {labels}"


def _of_pod(spec: Object, old: Object, installation: Settings) -> Iterator[str]:
    beside = {"affinity", "dnsPolicy", "hostNetwork", "imagePullSecrets", "topologySpreadConstraints"}
    if not set(spec) - set(old) <= {*WITH_A_LIST, *beside}:
        yield f"fields {set(spec)}"
    for field, allowed in WITH_A_LIST.items():
        if spec.get(field) not in (None, *getattr(installation.allow, allowed), installed(installation).get(field)):
            yield f"{field} {spec[field]}"
    if any(spec[name] != old[name] for name in set(old) - {"volumes", "containers", "affinity", "securityContext"}):
        yield "another pod"
    if spec["securityContext"] | old["securityContext"] != spec["securityContext"]:
        yield "another security context"
    volumes = [one | MEMORY if one["name"] == "shared-memory" else one for one in spec["volumes"]]
    yield from _grown(volumes, old["volumes"], "name")
    drivers = {one["csi"]["driver"] for one in spec["volumes"] if "csi" in one}
    if not drivers <= set(installation.allow.csi_drivers):
        yield f"volumes of {drivers}"


def _of_container(container: Object, plain: Object, installation: Settings) -> Iterator[str]:
    allow, template = installation.allow, installed(installation)
    yield from _grown(container["volumeMounts"], plain["volumeMounts"], "mountPath")
    yield from _grown(container["env"], plain["env"], "name")
    if any(container[name] != plain[name] for name in set(plain) - {"env", "volumeMounts", "resources"}):
        yield "another container"
    known = {one["name"] for one in (*plain["env"], *template["env"])} | set(allow.env)
    for one in container["env"]:
        if one["name"] not in known or "$(" in one.get("value", "").replace("$$", ""):
            yield f"variable {one}"
    for one in container.get("envFrom", ()):
        if not {reference["name"] for reference in one.values()} <= set(allow.env_from):
            yield f"variables of {one}"
    folders = {one["mountPath"] for one in (*plain["volumeMounts"], *template["volumeMounts"])}
    for one in container["volumeMounts"]:
        if one["mountPath"] not in folders and not one["mountPath"].startswith(allow.mount_paths):
            yield f"mount {one}"


def installed(installation: Settings) -> dict[str, Any]:
    """The installation's own template."""
    return installation.pod_template.document()


def _grown(new: list[Object], old: list[Object], key: str) -> Iterator[str]:
    """A list that has all that it had, as it was, and no key twice."""
    if new[: len(old)] != old:
        yield f"lost of {old}"
    if len({one[key] for one in new}) != len(new):
        yield f"a {key} twice in {new}"
