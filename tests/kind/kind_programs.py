"""The programs of a kind cluster, built once from Go modules, beside those of the project's own test cluster."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from kubenode import tools
from kubenode.places import PROJECT, TOOLS
from kubenode.processes import run, run_long
from kubenode.tools import Build

KIND = Build("kind", 2, "sigs.k8s.io/kind", "v0.30.0")
"""The newest that takes what is here: cgroups v1, and ctr 1.6 (with images/node-base/ctr)."""
ON_NODES = (
    Build("crictl", 3, "sigs.k8s.io/cri-tools/cmd/crictl", "v1.34.0"),
    Build("local-path-provisioner", 3, "github.com/rancher/local-path-provisioner", "v0.0.30"),
    Build("kube-router", 4, "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router", "v2.1.0"),
)
OF_THE_TEST_CLUSTER = tuple(
    build for build in tools.CLUSTER + tools.ADDITIONS if build.name in ("node", "pause", "coredns", "minio", "helm")
)
KUBEADM = TOOLS / "kubeadm"
KUBEADM_SECONDS = 1200


def install() -> None:
    """Build what is not there yet, into the folder of the test cluster's programs.

    Raises:
        ClusterError: the machine lacks something that cannot be installed, or a build fails.
    """
    tools.install((*OF_THE_TEST_CLUSTER, KIND, *ON_NODES))
    if not KUBEADM.exists():
        _build_kubeadm()


def sources_of_kind() -> Path:
    """kind's module, whose images/base/files are what its nodes start from."""
    cache = run("go", "env", "GOMODCACHE").stdout.strip()
    return Path(cache) / f"{KIND.package}@{KIND.version}"


def kubernetes_version() -> str:
    """As in `v1.34.4`."""
    module = (PROJECT / "tests/cluster/go/node/go.mod").read_text()
    return next(line.split()[1] for line in module.splitlines() if line.strip().startswith("k8s.io/kubernetes "))


def _build_kubeadm() -> None:
    """Of the same modules as the test cluster's Kubernetes, and the few more that it needs."""
    print("building kubeadm, once (at most 5 minutes on two cores)", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(Path(__file__).parent / "go/kubeadm/main.go", folder)
        for name in ("go.mod", "go.sum"):
            shutil.copy(PROJECT / "tests/cluster/go/node" / name, folder)
        flags = f"-s -w {tools.kubernetes_version_flags()}"
        run_long(
            *("go", "build", "-mod=mod", "-trimpath", "-ldflags", flags, "-o", KUBEADM, "."),
            where=Path(folder),
            environment={"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"},
            seconds=KUBEADM_SECONDS,
        )
