"""What the project's tests need on a bare cluster: MinIO and KubeRay's operator, and Kueue for those that want it.

All are pods on node-1.
"""

from __future__ import annotations

import json
import os
from functools import partial

from kubenode.archives import KUBERAY, KUEUE, MINIO
from kubenode.certificates import kubeconfig
from kubenode.node import Node
from kubenode.places import CACHE, SOURCES, STATE, TOOLS
from kubenode.processes import ClusterError, Word, run, wait
from kubenode.tools import module_folder

MODULES = {"kuberay": "github.com/ray-project/kuberay/ray-operator", "kueue": "sigs.k8s.io/kueue"}
"""Whose sources have manifests, by the folder in `go/` that requires them."""

DEPLOYMENTS = {"minio": "minio", "ray-system": "kuberay-operator"}
"""By namespace."""

KUEUE_NAMESPACE = "kueue-system"
GUARDS = "mutatingwebhookconfigurations,validatingwebhookconfigurations"


def install_additions(first: Node) -> None:
    """Start both, and wait until they are ready."""
    for image in (MINIO, KUBERAY):
        first.add(image)
    data = STATE / "minio"
    data.mkdir(exist_ok=True)
    os.chown(data, MINIO.user, MINIO.user)
    kubectl("create", "namespace", "ray-system", check=False)
    for manifest in (minio_manifest(), upstream_manifest("kuberay")):
        kubectl("apply", "--server-side", "-f", "-", standard_input=manifest)
    for namespace, deployment in DEPLOYMENTS.items():
        wait(deployment, partial(_is_available, namespace, deployment), 120)


def minio_manifest() -> str:
    """With its objects in the cluster's folder."""
    return (SOURCES / "manifests" / "minio.yaml").read_text().replace("/var/lib/kubenode", str(STATE))


def install_kueue(first: Node) -> None:
    """Start Kueue where there is none, and wait until it answers; only Jobs and RayJobs in a queue are its own."""
    first.add(KUEUE)
    wait("the end of another Kueue", lambda: not _is_going(KUEUE_NAMESPACE), 90)
    kubectl("apply", "--server-side", "-f", "-", standard_input=upstream_manifest("kueue"))
    wait("Kueue", partial(_is_available, KUEUE_NAMESPACE, "kueue-controller-manager"), 120)
    wait("Kueue's webhooks", _kueue_answers, 60)


def remove_kueue() -> None:
    """Whatever state it is in; the webhooks go first, since nobody answers for them afterwards."""
    kubectl("delete", GUARDS, "-l", "app.kubernetes.io/name=kueue", check=False)
    objects = kubectl("get", "workloads,localqueues,clusterqueues,resourceflavors", "-A", "-o", "name", check=False)
    if objects:
        raise ClusterError(f"Kueue still has {' '.join(objects.split())}: delete them before it")
    kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", standard_input=upstream_manifest("kueue"))


def upstream_manifest(name: str) -> str:
    """A project's own manifests, changed as `manifests/NAME.yaml` says."""
    folder = CACHE / name
    folder.mkdir(parents=True, exist_ok=True)
    made, source = folder / "made.yaml", SOURCES / "manifests" / f"{name}.yaml"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        upstream = os.path.relpath(module_folder(name, MODULES[name]) / "config" / "default", folder)
        (folder / "kustomization.yaml").write_text(source.read_text().replace("- UPSTREAM", f"- {upstream}"))
        made.write_text(run(TOOLS / "kubectl", "kustomize", folder).stdout)
    return made.read_text()


def _kueue_answers() -> bool:
    """Its certificates are there a while after it is ready: until then it refuses whatever it is asked."""
    flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "asked"}}
    return bool(
        kubectl("create", "--dry-run=server", "-f", "-", "-o", "name", standard_input=json.dumps(flavor), check=False)
    )


def kubectl(*command: str, standard_input: str | None = None, check: bool = True) -> str:
    """What kubectl says to the cluster's administrator."""
    words: tuple[Word, ...] = (TOOLS / "kubectl", f"--kubeconfig={kubeconfig()}", *command)
    return run(*words, standard_input=standard_input, check=check).stdout


def _is_going(namespace: str) -> bool:
    phase = ("-o", "jsonpath={.status.phase}", "--ignore-not-found")
    return kubectl("get", "namespace", namespace, *phase) == "Terminating"


def _is_available(namespace: str, deployment: str) -> bool:
    ready = "jsonpath={.status.availableReplicas}"
    return kubectl("get", "deployment", deployment, "-n", namespace, "-o", ready, check=False) == "1"
