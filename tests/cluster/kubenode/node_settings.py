"""The files that a node's daemons are started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kubenode.archives import PAUSE
from kubenode.certificates import kubeconfig
from kubenode.control_plane import CERTS_D
from kubenode.places import HOST_ADDRESS, PKI, PODS


def write_node_settings(
    folder: Path, index: int, name: str, address: str, pods: str, images: Path, runtime: Path
) -> None:
    """For containerd, its network plugin, kubelet and kube-proxy."""
    for part in ("kubelet", "cni", "logs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "containerd.toml").write_text(containerd(folder, images, runtime))
    for file, document in {
        "cni/10-bridge.conflist": network(folder, pods),
        "kubelet.json": kubelet(folder, index, address),
        "kube-proxy.json": kube_proxy(name, address),
    }.items():
        written, text = folder / file, json.dumps(document, indent=2)
        if not written.exists() or written.read_text() != text:  # a kube-proxy that runs ends when its file is written
            written.write_text(text)


def containerd(folder: Path, images: Path, runtime: Path) -> str:
    """Its configuration file; `oom_score_adj` cannot be lowered inside a container, so it is not tried."""
    return f"""\
version = 2
root = "{images}"
state = "{runtime}"
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE.name}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{CERTS_D}"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    discard_unpacked_layers = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def network(folder: Path, pods: str) -> dict[str, Any]:
    """A bridge per node, routed; NetworkPolicies are accepted by the API server and enforced by nobody."""
    addresses = {
        "type": "host-local",
        "dataDir": str(folder / "ipam"),
        "ranges": [[{"subnet": pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False, "hairpinMode": True}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**bridge, "ipam": addresses}, ports]}


def kubelet(folder: Path, index: int, address: str) -> dict[str, Any]:
    """A kubelet that tells of its node every 4 s, and leaves images and a nearly full disk alone."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{PKI}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/kubenode-{index}",
        "clusterDNS": [HOST_ADDRESS],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "enableControllerAttachDetach": True,
        "eventRecordQPS": 0,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "4s",
        "podLogsDir": str(folder / "logs"),
        "podPidsLimit": 4096,
        "registryPullQPS": 0,
        "resolvConf": "",
        "seccompDefault": True,
        "syncFrequency": "10s",
        "tlsCertFile": f"{PKI}/kubelet-serving-{index}.crt",
        "tlsPrivateKeyFile": f"{PKI}/kubelet-serving-{index}.key",
    }


def kube_proxy(name: str, address: str) -> dict[str, Any]:
    """A kube-proxy that leaves the kernel's limits on connections alone."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig("kube-proxy"))},
        "clusterCIDR": PODS,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "healthzBindAddress": f"{address}:10256",
        "hostnameOverride": name,
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        "metricsBindAddress": "127.0.0.1:10249",
    }
