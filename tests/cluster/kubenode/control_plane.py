"""What runs on the host: etcd, the API server, the controllers, the scheduler, DNS and the registry."""

from __future__ import annotations

import json
import signal
import ssl
import urllib.request
from pathlib import Path

from kubenode.certificates import kubeconfig
from kubenode.places import BRIDGE, CACHE, HOST_ADDRESS, PKI, REGISTRY, SERVICES, STATE, TOOLS
from kubenode.processes import Word, is_running, run, spawn, stop, wait

DAEMONS = ("etcd", "apiserver", "controller-manager", "scheduler", "coredns", "registry")
"""In the order in which they start."""

CERTS_D = STATE / "certs.d"
"""Tells the nodes' containerd how to reach the registry."""

REGISTRY_FOLDER = CACHE / "registry"
"""It stays from one cluster to the next."""

ETCD = "http://127.0.0.1:2379"

DNS = f"""\
cluster.local:53 in-addr.arpa:53 {{
    bind {HOST_ADDRESS}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig("coredns")} kubenode
        pods insecure
        ttl 2
    }}
}}
.:53 {{
    bind {HOST_ADDRESS}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""


def start_control_plane() -> None:
    """Start what does not run yet."""
    make_bridge()
    write_settings()
    for name in DAEMONS:
        start(name)


def stop_control_plane() -> None:
    """Stop everything on the host, and forget its network."""
    for name in reversed(DAEMONS):
        stop(name)
    run("ip", "link", "del", BRIDGE, check=False)


def restart(name: str) -> None:
    """Kill a daemon at once, and start it again."""
    stop(name, signal.SIGKILL)
    start(name)


def start(name: str) -> None:
    """Start a daemon; the API server is waited for."""
    spawn(name, command(name))
    if name == "apiserver":
        wait("the API server", is_healthy, 180)


def forget_replaced_images() -> None:
    """Give back what images take in the registry that have no name any more; while nobody uses it."""
    STATE.mkdir(parents=True, exist_ok=True)
    write_settings()
    if (REGISTRY_FOLDER / "docker").exists():
        run(TOOLS / "registry", "garbage-collect", "--delete-untagged", STATE / "registry.json")


def status() -> dict[str, bool]:
    """Which daemons run."""
    return {name: is_running(name) for name in DAEMONS}


def make_bridge() -> None:
    """The wire between the nodes; the host has an address on it."""
    if not Path(f"/sys/class/net/{BRIDGE}").exists():
        run("ip", "link", "add", BRIDGE, "type", "bridge")
        run("ip", "addr", "add", f"{HOST_ADDRESS}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")


def write_settings() -> None:
    """The files that the daemons read."""
    (STATE / "Corefile").write_text(DNS)
    storage = {"filesystem": {"rootdirectory": str(REGISTRY_FOLDER)}, "delete": {"enabled": True}}
    registry = {"version": "0.1", "log": {"level": "warn"}, "http": {"addr": ":5000"}, "storage": storage}
    (STATE / "registry.json").write_text(json.dumps(registry))
    hosts = CERTS_D / REGISTRY / "hosts.toml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    hosts.write_text(f'[host."http://{HOST_ADDRESS}:5000"]\n  capabilities = ["pull", "resolve"]\n')


def command(name: str) -> list[Word]:
    """How a daemon is started."""
    match name:
        case "etcd":
            return [
                *(TOOLS / "etcd", "--data-dir", STATE / "etcd", "--unsafe-no-fsync"),
                *(f"--listen-client-urls={ETCD}", f"--advertise-client-urls={ETCD}"),
                "--listen-peer-urls=http://127.0.0.1:2380",
            ]
        case "apiserver":
            return _api_server()
        case "controller-manager":
            return [
                *(TOOLS / "kube-controller-manager", f"--kubeconfig={kubeconfig(name)}", "--leader-elect=false"),
                *("--use-service-account-credentials", f"--service-account-private-key-file={PKI}/sa.key"),
                *(f"--root-ca-file={PKI}/ca.crt", f"--cluster-signing-cert-file={PKI}/ca.crt"),
                f"--cluster-signing-key-file={PKI}/ca.key",
                *("--node-monitor-period=2s", "--node-monitor-grace-period=16s"),
            ]
        case "scheduler":
            return [TOOLS / "kube-scheduler", f"--kubeconfig={kubeconfig(name)}", "--leader-elect=false"]
        case "coredns":
            return [TOOLS / "coredns", "-conf", STATE / "Corefile", "-dns.port", "53"]
        case _:
            return [TOOLS / "registry", "serve", STATE / "registry.json"]


def _api_server() -> list[Word]:
    return [
        *(TOOLS / "kube-apiserver", f"--etcd-servers={ETCD}"),
        *(f"--bind-address={HOST_ADDRESS}", f"--advertise-address={HOST_ADDRESS}"),
        *(f"--service-cluster-ip-range={SERVICES}", "--authorization-mode=Node,RBAC", "--allow-privileged=true"),
        *(f"--client-ca-file={PKI}/ca.crt", "--enable-admission-plugins=NodeRestriction"),
        *(f"--tls-cert-file={PKI}/apiserver.crt", f"--tls-private-key-file={PKI}/apiserver.key"),
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={PKI}/apiserver-kubelet.crt",
        f"--kubelet-client-key={PKI}/apiserver-kubelet.key",
        *(f"--proxy-client-cert-file={PKI}/front-proxy.crt", f"--proxy-client-key-file={PKI}/front-proxy.key"),
        *(f"--requestheader-client-ca-file={PKI}/ca.crt", "--requestheader-username-headers=X-Remote-User"),
        *("--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-"),
        "--enable-aggregator-routing=true",  # the host runs no kube-proxy: webhooks are reached at their pods
        "--service-account-issuer=https://kubernetes.default.svc",
        *(f"--service-account-key-file={PKI}/sa.key", f"--service-account-signing-key-file={PKI}/sa.key"),
    ]


def is_healthy() -> bool:
    """Whether the API server says that it is ready."""
    context = ssl.create_default_context(cafile=str(PKI / "ca.crt"))
    context.load_cert_chain(PKI / "admin.crt", PKI / "admin.key")
    try:
        with urllib.request.urlopen(f"https://{HOST_ADDRESS}:6443/readyz", context=context, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
