"""One node: a network namespace with containerd, kubelet and kube-proxy in it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import grpc

from kubenode.archives import PAUSE, ProgramImage
from kubenode.certificates import issue, kubeconfig, write_kubeconfig
from kubenode.node_settings import write_node_settings
from kubenode.places import BRIDGE, CACHE, CGROUPS, HOST_ADDRESS, RUNTIME, STATE, TOOLS
from kubenode.processes import ClusterError, is_running, run, spawn, stop, wait

DAEMONS = ("containerd", "kubelet", "kube-proxy")


@dataclass(frozen=True)
class Node:
    """The node `node-INDEX`."""

    index: int

    @property
    def name(self) -> str:
        return f"node-{self.index}"

    @property
    def namespace(self) -> str:
        """Its network namespace, and the top of its cgroups."""
        return f"kubenode-{self.index}"

    @property
    def link(self) -> str:
        """The host's end of its wire."""
        return f"kubenode-l{self.index}"

    @property
    def address(self) -> str:
        return f"172.30.0.{10 + self.index}"

    @property
    def pods(self) -> str:
        """The addresses of its pods."""
        return f"10.244.{self.index}.0/24"

    @property
    def folder(self) -> Path:
        return STATE / self.name

    @property
    def images(self) -> Path:
        """containerd's folder; images stay in it from one cluster to the next."""
        return CACHE / "nodes" / self.name

    def create(self, all_nodes: Sequence[Node]) -> None:
        """Lay its wire, and write what its daemons read."""
        self._connect()
        run("ip", "route", "replace", self.pods, "via", self.address)
        for other in all_nodes:
            if other != self:
                run("ip", "-n", self.namespace, "route", "replace", other.pods, "via", other.address)
        for controller in _cgroup_controllers():
            (controller / self.namespace).mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            everything = (CGROUPS / "cpuset" / setting).read_text()
            (CGROUPS / "cpuset" / self.namespace / setting).write_text(everything)
        write_kubeconfig(f"kubelet-{self.index}", f"/O=system:nodes/CN=system:node:{self.name}")
        issue(f"kubelet-serving-{self.index}", f"/CN={self.name}", f"DNS:{self.name},IP:{self.address}")
        runtime = RUNTIME / self.name
        write_node_settings(self.folder, self.index, self.name, self.address, self.pods, self.images, runtime)

    def start(self) -> None:
        """Switch it on."""
        (RUNTIME / self.name).mkdir(parents=True, exist_ok=True)
        run("ip", "link", "set", self.link, "up")
        self._start_containerd()
        kubelet = (
            *(TOOLS / "kubelet", f"--config={self.folder}/kubelet.json", f"--root-dir={self.folder}/kubelet"),
            *(f"--kubeconfig={kubeconfig(f'kubelet-{self.index}')}", f"--cert-dir={self.folder}/pki"),
            *(f"--hostname-override={self.name}", f"--node-ip={self.address}", "--v=1"),
        )
        proxy = (TOOLS / "kube-proxy", f"--config={self.folder}/kube-proxy.json", "--v=1")
        spawn(self._daemon("kubelet"), kubelet, self.namespace)
        spawn(self._daemon("kube-proxy"), proxy, self.namespace)

    def kill(self) -> None:
        """Cut its power: nothing on it says goodbye, and nothing of it answers any more."""
        run("ip", "link", "set", self.link, "down", check=False)
        for program in ("kubelet", "kube-proxy", "containerd"):
            stop(self._daemon(program), signal.SIGKILL)
        self._kill_containers()

    def disconnect(self) -> None:
        """Cut its wire: all on it goes on, and reaches nothing."""
        run("ip", "link", "set", self.link, "down")

    def reconnect(self) -> None:
        """Mend its wire."""
        run("ip", "link", "set", self.link, "up")

    def destroy(self) -> None:
        """Kill it, and leave nothing of it but images."""
        self.kill()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            target = line.split()[4]
            if target.startswith((f"{self.folder}/", f"{self.images}/", f"{RUNTIME}/{self.name}/")):
                run("umount", "-l", target, check=False)
        run("ip", "link", "del", self.link, check=False)
        run("ip", "netns", "del", self.namespace, check=False)
        for controller in _cgroup_controllers():
            _remove_cgroup(controller / self.namespace)

    def add(self, image: ProgramImage) -> None:
        """Import an image that consists of a program, unless the very same is there."""
        archive = image.archive()
        stamp = self.images / f"{image.program}.imported"
        there = self.containerd("images", "ls", "-q", f"name=={image.name}").stdout.strip()  # or a full disk took it
        if not there or not stamp.exists() or stamp.read_text() != str(archive.stat().st_mtime_ns):
            self.containerd("images", "import", archive)
            stamp.write_text(str(archive.stat().st_mtime_ns))

    def pull(self, image: str) -> None:
        """Fetch an image from the registry now, so that no pod waits for it.

        As the kubelet does, by the runtime interface of Kubernetes: layers that are there already are not fetched.

        Raises:
            grpc.RpcError: it is not in the registry, or the node is off.
        """
        with grpc.insecure_channel(f"unix://{self.folder}/containerd.sock") as channel:
            channel.unary_unary("/runtime.v1.ImageService/PullImage")(_message(_message(image.encode())), timeout=900)
        self._forget_replaced_images()

    def containerd(self, *command: str | Path, check: bool = True) -> CompletedProcess[str]:
        """What `ctr` says, about what Kubernetes runs."""
        return run("ctr", "-a", self.folder / "containerd.sock", "-n", "k8s.io", *command, check=check)

    def status(self) -> dict[str, bool]:
        """Which daemons run."""
        return {program: is_running(self._daemon(program)) for program in DAEMONS}

    def _connect(self) -> None:
        if not Path(f"/run/netns/{self.namespace}").exists():
            run("ip", "netns", "add", self.namespace)
        if Path(f"/sys/class/net/{self.link}").exists():
            return
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.namespace)
        run("ip", "link", "set", self.link, "master", BRIDGE, "up")
        inside = ("ip", "-n", self.namespace)
        run(*inside, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run(*inside, "link", "set", device, "up")
        run(*inside, "route", "add", "default", "via", HOST_ADDRESS)
        for setting in ("net.ipv4.ip_forward=1", "net.bridge.bridge-nf-call-iptables=1"):
            run("nsenter", f"--net=/run/netns/{self.namespace}", "sysctl", "-qw", setting)

    def _start_containerd(self) -> None:
        command = ("containerd", "--config", self.folder / "containerd.toml", "--log-level", "warn")
        spawn(self._daemon("containerd"), command, self.namespace, humble=True)
        answers = lambda: self.containerd("version", check=False).returncode == 0  # noqa: E731
        wait(f"containerd on {self.name}", answers, 60)
        if not (self.folder / "kubelet" / "pods").exists():  # a new cluster, and containers of an earlier one
            for container in self.containerd("containers", "ls", "-q").stdout.split():
                self.containerd("containers", "rm", container, check=False)
        self.add(PAUSE)

    def _forget_replaced_images(self) -> None:
        """Those that only go by their digest: their name is another one's by now."""
        lines = self.containerd("images", "ls").stdout.splitlines()[1:]
        digests = {name: digest for name, _, digest, *_ in (line.split() for line in lines)}
        named = {digest for name, digest in digests.items() if "sha256:" not in name}
        for name, digest in digests.items():
            if digest not in named:
                self.containerd("images", "rm", name, check=False)

    def _kill_containers(self) -> None:
        for _ in range(50):
            groups = (CGROUPS / "pids" / self.namespace).rglob("cgroup.procs")
            processes = {int(process) for group in groups for process in group.read_text().split()}
            shims = run("pgrep", "-f", f"containerd-shim.*{self.folder}/containerd.sock", check=False)
            processes |= {int(process) for process in shims.stdout.split()}
            if not processes:
                return
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.2)
        raise ClusterError(f"{self.name}: containers do not die: {sorted(processes)}")

    def _daemon(self, program: str) -> str:
        return f"{program}-{self.index}"


def all_nodes() -> list[Node]:
    """The nodes of the cluster, running or not."""
    spaces = Path("/run/netns").glob("kubenode-*")
    return [Node(index) for index in sorted(int(space.name.split("-")[1]) for space in spaces)]


def node(name: str) -> Node:
    """The node of that name.

    Raises:
        ClusterError: there is none.
    """
    found = {node.name: node for node in all_nodes()}
    if name not in found:
        raise ClusterError(f"no node {name!r}; there are: {', '.join(found) or 'none'}")
    return found[name]


def _message(content: bytes) -> bytes:
    """A protobuf message whose first field is `content`, of less than 128 bytes, and that has no others."""
    return bytes([0x0A, len(content)]) + content


def _cgroup_controllers() -> list[Path]:
    """Of cgroups v1: a folder each; the links beside them are other names of the same."""
    return [
        folder
        for folder in CGROUPS.iterdir()
        if folder.is_dir() and not folder.is_symlink() and folder.name != "unified"
    ]


def _remove_cgroup(top: Path) -> None:
    groups = [group for group in top.rglob("*") if group.is_dir()] if top.exists() else []
    for group in sorted(groups, key=lambda path: -len(path.parts)):
        group.rmdir()
    if top.exists():
        top.rmdir()
