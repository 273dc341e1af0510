"""Who may talk to the pods of a run, and with whom they may talk."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from ipaddress import ip_network

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
    """Let in the run's own pods, and on the progress port the operator and the metrics scraper; `egress` says whom they
    reach."""
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
            "egress": egress(attempt.settings, attempt.labels),
        },
    }


def egress(settings: Settings, own: Mapping[str, str]) -> list[Object]:
    """To anywhere (stores are where users say), or, where the installation names places, to those, to the pods with the
    labels `own`, and to name servers; but never to the cloud's metadata."""
    places = settings.egress
    if not (places.cidrs or places.namespaces):
        inside: Object = {
            "namespaceSelector": {}
        }  # some network plugins take a block of addresses for the outside only
        return [{"to": [inside, *map(_block, METADATA_ADDRESSES)]}]
    peers = {"podSelector": {"matchLabels": dict(own)}}
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    return [{"to": [peers, *map(_namespace, places.namespaces), *map(_block, places.cidrs)]}, {"ports": names}]


def _block(cidr: str) -> Object:
    """A block of addresses without those of the cloud's metadata that are within it."""
    denied = _denied(cidr)
    return {"ipBlock": {"cidr": cidr, **({"except": list(denied)} if denied else {})}}


@cache
def _denied(cidr: str) -> tuple[str, ...]:
    """The addresses of the cloud's metadata within a block; an installation has a few blocks, and many runs."""
    network = ip_network(cidr)
    return tuple(
        address
        for address in itertools.chain(*METADATA_ADDRESSES.values())
        if (inner := ip_network(address)).version == network.version and inner.subnet_of(network)  # type: ignore[arg-type]
    )


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
