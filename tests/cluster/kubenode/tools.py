"""The programs that the cluster is made of: Debian's packages, and what is built once from Go modules."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kubenode.places import CGROUPS, SOURCES, TOOLS
from kubenode.processes import ClusterError, alone, run, run_long

PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
"""What the binary `node` is, by the name that it is run as."""

PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
}
"""Debian's packages, by a program of each."""


BUSY = 4
"""How many times longer than on a quiet machine a build may take."""


@dataclass(frozen=True)
class Build:
    """A program of a Go module: one of ours in `go/`, or one of another's at a version."""

    name: str
    minutes: int
    """That it takes on two cores, at most."""
    package: str = "."
    version: str = ""
    folder: str = ""

    def command(self) -> tuple[str | Path, ...]:
        """Installs it as `TOOLS/name`, without what only a debugger needs."""
        flags = f"-s -w {kubernetes_version_flags()}" if self.name == "node" else "-s -w"
        if self.version:
            return ("go", "install", "-trimpath", "-ldflags", flags, f"{self.package}@{self.version}")
        return ("go", "build", "-trimpath", "-ldflags", flags, "-o", TOOLS / self.name, self.package)


CLUSTER = (
    Build("node", 10, folder="node"),
    Build("pause", 1, folder="pause"),
    Build("coredns", 5, "github.com/coredns/coredns", "v1.12.4"),
    Build("registry", 3, "github.com/distribution/distribution/v3/cmd/registry", "v3.0.0"),
)
"""What a bare cluster needs."""

ADDITIONS = (
    Build("minio", 5, "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c"),
    Build("ray-operator", 4, "github.com/ray-project/kuberay/ray-operator", folder="kuberay"),
    Build("kueue", 5, "sigs.k8s.io/kueue/cmd/kueue", folder="kueue"),
    Build("helm", 3, "helm.sh/helm/v3/cmd/helm", "v3.19.0"),
    Build("kubeconform", 2, "github.com/yannh/kubeconform/cmd/kubeconform", "v0.7.0"),
)
"""What the tests put on it, and what they check it with."""

HEALTH = (Build("health", 3, folder="health"),)
"""What others make of a status: for tests that need no cluster."""

SIMULATION = (Build("kwok", 3, "sigs.k8s.io/kwok/cmd/kwok", "v0.7.0"),)
"""Simulated nodes and pods, for tests of scale."""


def missing_requirement() -> str | None:
    """Why no cluster can be had on this machine; None: one can."""
    if sys.platform != "linux" or os.geteuid():
        return "a test cluster needs root on Linux: it makes network namespaces and runs containers"
    if not (CGROUPS / "pids").is_dir():
        return "a test cluster needs cgroups v1"
    if shutil.which("go") is None and any(not _path(build).exists() for build in CLUSTER + ADDITIONS):
        return "a test cluster needs Go 1.25 or newer, to build Kubernetes"
    if _missing_packages() and shutil.which("apt-get") is None:
        return f"a test cluster needs {', '.join(_missing_packages())}"
    return None


def install(builds: Sequence[Build] = CLUSTER + ADDITIONS) -> None:
    """Install the packages and build the programs that are not there yet.

    Raises:
        ClusterError: the machine lacks something that cannot be installed, or a build fails.
    """
    if problem := missing_requirement():
        raise ClusterError(problem)
    TOOLS.mkdir(parents=True, exist_ok=True)
    with alone("tools"):
        install_packages()
        for build in builds:
            if not _path(build).exists():
                _build(build)
        for program in PROGRAMS:
            if not (TOOLS / program).is_symlink():
                (TOOLS / program).symlink_to("node")


def install_packages() -> None:
    """With apt, where something is missing; nothing that comes with them is started."""
    packages = _missing_packages()
    if not packages:
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    run_long("apt-get", "update", "-qq", environment=quiet, seconds=300)
    run_long("apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages, environment=quiet, seconds=600)
    if systemctl := shutil.which("systemctl"):  # the nodes start their own
        run(systemctl, "disable", "--now", "containerd", check=False)


def module_folder(name: str, module: str) -> Path:
    """Where the sources of a module lie that the one in `go/name` requires."""
    return Path(run("go", "-C", SOURCES / "go" / name, "list", "-m", "-f", "{{.Dir}}", module).stdout.strip())


def kubernetes_version_flags() -> str:
    """What tells the programs their own version, as upstream's build does."""
    module = (SOURCES / "go" / "node" / "go.mod").read_text()
    version = next(line.split()[1] for line in module.splitlines() if line.strip().startswith("k8s.io/kubernetes "))
    major, minor = version.lstrip("v").split(".")[:2]
    values = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in values.items())


def _build(build: Build) -> None:
    print(f"building {build.name}, once (at most {build.minutes} minutes on two cores)", file=sys.stderr, flush=True)
    settings = {"GOBIN": str(TOOLS), "GOFLAGS": "-buildvcs=false"}
    if (
        build.name != "node"
    ):  # upstream's kubelet is linked with C; the others have an image of their own and nothing in it
        settings["CGO_ENABLED"] = "0"
    folder = SOURCES / "go" / build.folder if build.folder else Path("/")
    run_long(*build.command(), where=folder, environment=settings, seconds=BUSY * 60 * build.minutes)


def _path(build: Build) -> Path:
    return TOOLS / build.name


def _missing_packages() -> list[str]:
    return [package for program, package in PACKAGES.items() if shutil.which(program) is None]
