"""Who may talk to the pods of a run, and with whom they may talk."""

from __future__ import annotations

from kindling_api.v1alpha1.runfile import PROGRESS_PORT
from kindling_operator.render.attempt import Attempt
from kindling_operator.render.ray import DASHBOARD_PORT, KUBERAY_LABELS, uses_ray_job
from kindling_operator.settings import Settings
from kindling_operator.world import Object

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""The label that every namespace carries with its own name."""

METADATA_ADDRESSES = {"0.0.0.0/0": ["169.254.169.254/32"], "::/0": ["fd00:ec2::254/128"]}
"""Where clouds give a node's credentials to whoever asks; by the network it is in."""


def network_policy(attempt: Attempt) -> Object:
    """Let in the run's own pods, and on the progress port the operator and the metrics scraper. Let out to anywhere
    (stores are where users say) but to the cloud's metadata."""
    own = {"podSelector": {"matchLabels": attempt.labels}}
    ingress: list[Object] = [{"from": [own]}, {"from": readers(attempt.settings), "ports": tcp(PROGRESS_PORT)}]
    if uses_ray_job(attempt.run):
        kuberay = {"namespaceSelector": {}, "podSelector": {"matchLabels": KUBERAY_LABELS}}
        ingress.append({"from": [kuberay], "ports": tcp(DASHBOARD_PORT)})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": attempt.metadata(),
        "spec": {
            "podSelector": {"matchLabels": attempt.labels},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress(),
        },
    }


def egress() -> list[Object]:
    """To anywhere but to the cloud's metadata."""
    outside = [{"ipBlock": {"cidr": cidr, "except": denied}} for cidr, denied in METADATA_ADDRESSES.items()]
    inside: Object = {"namespaceSelector": {}}  # some network plugins take a block of addresses for the outside only
    return [{"to": [inside, *outside]}]


def readers(settings: Settings) -> list[Object]:
    """The operator, and the metrics scraper where there is one."""
    operator = {**_namespace(settings.namespace), "podSelector": {"matchLabels": settings.operator_labels}}
    scraper = [_namespace(settings.scraper_namespace)] if settings.scraper_namespace else []
    return [operator, *scraper]


def _namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {NAMESPACE_LABEL: name}}}


def tcp(port: int) -> list[Object]:
    """The port of a rule."""
    return [{"protocol": "TCP", "port": port}]
