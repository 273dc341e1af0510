"""The images that a machine without Docker Hub cannot pull: Python, and kind's node with all that is on it.

The node is made by kind itself (`kind build node-image`), of what it takes for a release of Kubernetes: three programs
and four archives of images. kindnet is not to be had; kube-router, which enforces NetworkPolicies, stands in for it.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from kind_docker import BRIDGE, STATE, has
from kind_programs import kubernetes_version, sources_of_kind

from kubenode import images
from kubenode.places import PROJECT, TOOLS
from kubenode.processes import run, run_long

DOCKERFILES = Path(__file__).parent / "images"
PYTHON = "python:3.11-slim-bookworm"
BASE, BUILT = "localhost/kind-base:1", "localhost/kind-node:built"
K8S = "registry.k8s.io"
ETCD, COREDNS = f"{K8S}/etcd:3.6.5-0", f"{K8S}/coredns/coredns:v1.12.1"
PAUSE = (f"{K8S}/pause:3.10", f"{K8S}/pause:3.10.1")
"""By the names that kind 0.30 and kubeadm 1.34 look for."""
OF_KIND = (
    "docker.io/kindest/kindnetd:v20250512-df8de77b",
    "docker.io/kindest/local-path-provisioner:v20250214-acbabc1a",
    "docker.io/kindest/local-path-helper:v20241212-8ac705d0",
)
LONGEST = 1200
"""Seconds that one image may take."""


def node() -> str:
    """What the image of a kind node is called, for this version of Kubernetes."""
    return f"localhost/kind-node:{kubernetes_version()}"


def build() -> None:
    """Build those that are not there.

    Raises:
        ClusterError: a build failed.
    """
    if not has(PYTHON):
        _build_python()
    if not has(BASE):
        files = sources_of_kind() / "images/base/files"
        _build(BASE, DOCKERFILES / "node-base/Dockerfile", [DOCKERFILES / "node-base/ctr", TOOLS / "crictl", files])
    if not has(node()):
        _build_node()


def minio() -> str:
    """The chart's own, by its full name."""
    image = yaml.safe_load((PROJECT / "charts/kindling/values.yaml").read_text())["minio"]["image"]
    return f"{image['registry']}/{image['name']}:{image['tag']}"


def _build_python() -> None:
    """The base of the test cluster's images, as what it stands in for."""
    images.make_base()
    run_long("buildah", "push", "-q", images.BASE, f"docker-daemon:{images.BASE}", seconds=LONGEST)
    with tempfile.TemporaryDirectory() as folder:
        authorities = os.environ.get("PIP_CERT") or "/etc/ssl/certs/ca-certificates.crt"
        shutil.copy(authorities, Path(folder, "certificates.pem"))
        settings = images.pip_settings().replace("/etc/build-certificates.pem", "/etc/ssl/certs/ca-certificates.crt")
        Path(folder, "pip.conf").write_text(f"{settings}trusted-host = {BRIDGE}\n")
        _build(PYTHON, DOCKERFILES / "python.Dockerfile", [Path(folder, "certificates.pem"), Path(folder, "pip.conf")])


def _build_node() -> None:
    programs = [TOOLS / name for name in ("node", "local-path-provisioner", "kube-router")]
    _build("localhost/kubernetes:1", DOCKERFILES / "kubernetes.Dockerfile", programs)
    for name in ("coredns", "pause", "minio"):
        arguments = ("--build-arg", f"PROGRAM={name}")
        _build(f"localhost/{name}:1", DOCKERFILES / "program.Dockerfile", [TOOLS / name], *arguments)
    version = kubernetes_version()
    parts = [f"{K8S}/kube-{part}:{version}" for part in ("apiserver", "controller-manager", "scheduler", "proxy")]
    archives = {
        "kube-apiserver": ("localhost/kubernetes:1", (*parts, ETCD, *OF_KIND)),
        "kube-controller-manager": ("localhost/coredns:1", (COREDNS,)),
        "kube-scheduler": ("localhost/pause:1", PAUSE),
        "kube-proxy": ("localhost/minio:1", (minio(),)),  # the chart's, which nodes pull elsewhere
    }
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        server = Path(folder, "kubernetes/server/bin")
        server.mkdir(parents=True)
        for name, (image, names) in archives.items():
            _save(image, names, server / f"{name}.tar")
            run("docker", "rmi", image)
        _link(TOOLS / "node", server / "kubelet")
        _link(TOOLS / "kubeadm", server / "kubeadm")
        (server / "kubectl").write_text('#!/bin/bash\nexec -a kubectl /usr/bin/kubelet "$@"\n')
        (server / "kubectl").chmod(0o755)
        Path(folder, "kubernetes/version").write_text(version)
        release = Path(folder, "release.tar.gz")
        with tarfile.open(release, "w:gz", compresslevel=1) as packed:
            packed.add(Path(folder, "kubernetes"), "kubernetes")
        run_long(
            *("kind", "build", "node-image", "--type", "file", "--base-image", BASE, "--image", BUILT, release),
            environment={"TMPDIR": folder},  # it leaves there what it extracted
            seconds=LONGEST,
        )
    cni = DOCKERFILES / "node/default-cni.yaml"
    _build(node(), DOCKERFILES / "node/Dockerfile", [cni], "--build-arg", f"BUILT={BUILT}")


def _build(image: str, dockerfile: Path, files: Sequence[Path], *options: str) -> None:
    """With a context of these files and folders."""
    print(f"building {image}", file=sys.stderr, flush=True)
    with _context(files) as context:
        run_long("docker", "build", "--quiet", "--file", dockerfile, "--tag", image, *options, context, seconds=LONGEST)


@contextmanager
def _context(files: Sequence[Path]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        for path in files:
            if path.is_dir():
                shutil.copytree(path, Path(folder, path.name))
            else:
                _link(path, Path(folder, path.name))
        run("chmod", "-R", "u+w", folder)  # Go's modules are read-only
        yield Path(folder)


def _save(image: str, names: Sequence[str], archive: Path) -> None:
    """The image under these names: Docker itself would cut docker.io off them."""
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        saved = Path(folder, "saved.tar")
        run("docker", "save", "--output", str(saved), image)
        with tarfile.open(saved) as packed:
            packed.extractall(folder, filter="data")
        saved.unlink()
        Path(folder, "repositories").unlink(missing_ok=True)
        manifest = Path(folder, "manifest.json")
        (described,) = json.loads(manifest.read_text())
        manifest.write_text(json.dumps([{**described, "RepoTags": list(names)}]))
        with tarfile.open(archive, "w") as packed:
            for path in sorted(Path(folder).iterdir(), key=lambda path: path != manifest):  # the manifest first
                packed.add(path, path.name)


def _link(source: Path, target: Path) -> None:
    """Without a copy where both are on one disk."""
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        shutil.copy(source, target)
