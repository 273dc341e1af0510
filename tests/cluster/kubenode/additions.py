"""What the project's tests need on a bare cluster: MinIO and KubeRay's operator, both as pods on node-1."""

from __future__ import annotations

import os
from functools import partial

from kubenode.archives import KUBERAY, MINIO
from kubenode.certificates import kubeconfig
from kubenode.node import Node
from kubenode.places import CACHE, SOURCES, STATE, TOOLS
from kubenode.processes import Word, run, wait
from kubenode.tools import module_folder

KUBERAY_MODULE = "github.com/ray-project/kuberay/ray-operator"

DEPLOYMENTS = {"minio": "minio", "ray-system": "kuberay-operator"}
"""By namespace."""


def install_additions(first: Node) -> None:
    """Start both, and wait until they are ready."""
    for image in (MINIO, KUBERAY):
        first.add(image)
    data = STATE / "minio"
    data.mkdir(exist_ok=True)
    os.chown(data, MINIO.user, MINIO.user)
    kubectl("create", "namespace", "ray-system", check=False)
    for manifest in (minio_manifest(), kuberay_manifest()):
        kubectl("apply", "--server-side", "-f", "-", standard_input=manifest)
    for namespace, deployment in DEPLOYMENTS.items():
        wait(deployment, partial(_is_available, namespace, deployment), 120)


def minio_manifest() -> str:
    """With its objects in the cluster's folder."""
    return (SOURCES / "manifests" / "minio.yaml").read_text().replace("/var/lib/kubenode", str(STATE))


def kuberay_manifest() -> str:
    """Upstream's, changed as `manifests/kuberay.yaml` says."""
    folder = CACHE / "kuberay"
    folder.mkdir(parents=True, exist_ok=True)
    made, source = folder / "made.yaml", SOURCES / "manifests" / "kuberay.yaml"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        upstream = os.path.relpath(module_folder("kuberay", KUBERAY_MODULE) / "config" / "default", folder)
        (folder / "kustomization.yaml").write_text(source.read_text().replace("- UPSTREAM", f"- {upstream}"))
        made.write_text(run(TOOLS / "kubectl", "kustomize", folder).stdout)
    return made.read_text()


def kubectl(*command: str, standard_input: str | None = None, check: bool = True) -> str:
    """What kubectl says to the cluster's administrator."""
    words: tuple[Word, ...] = (TOOLS / "kubectl", f"--kubeconfig={kubeconfig()}", *command)
    return run(*words, standard_input=standard_input, check=check).stdout


def _is_available(namespace: str, deployment: str) -> bool:
    ready = "jsonpath={.status.availableReplicas}"
    return kubectl("get", "deployment", deployment, "-n", namespace, "-o", ready, check=False) == "1"
