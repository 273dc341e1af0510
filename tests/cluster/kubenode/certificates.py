"""The cluster's certificate authority, and the kubeconfig of each client."""

from __future__ import annotations

import json
from pathlib import Path

from kubenode.places import API_SERVICE, HOST_ADDRESS, PKI, STATE
from kubenode.processes import run

ADMINISTRATOR = "admin"
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
API_SERVER_NAMES = (
    "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,"
    f"IP:127.0.0.1,IP:{HOST_ADDRESS},IP:{API_SERVICE}"
)


def make_certificates() -> None:
    """Of the control plane; what exists is left as it is."""
    PKI.mkdir(parents=True, exist_ok=True)
    if not (PKI / "ca.crt").exists():
        authority = ("-subj", "/CN=kubenode-ca", "-keyout", PKI / "ca.key", "-out", PKI / "ca.crt")
        run("openssl", "req", "-x509", *NEW_KEY, "-days", "3650", *authority)
        run("openssl", "genrsa", "-out", PKI / "sa.key", "2048")
    issue("apiserver", "/CN=kube-apiserver", API_SERVER_NAMES)
    issue("apiserver-kubelet", "/O=system:masters/CN=kube-apiserver-kubelet-client")
    issue("front-proxy", "/CN=front-proxy-client")
    write_kubeconfig(ADMINISTRATOR, "/O=system:masters/CN=admin")
    write_kubeconfig("controller-manager", "/CN=system:kube-controller-manager")
    write_kubeconfig("scheduler", "/CN=system:kube-scheduler")
    write_kubeconfig("kube-proxy", "/CN=system:kube-proxy")
    write_kubeconfig("coredns", "/O=system:masters/CN=coredns")


def issue(name: str, subject: str, alternative_names: str = "") -> None:
    """A key and a certificate for client and server, signed by the cluster's authority."""
    key, request, certificate = (PKI / f"{name}.{ending}" for ending in ("key", "csr", "crt"))
    if certificate.exists():
        return
    run("openssl", "req", *NEW_KEY, "-subj", subject, "-keyout", key, "-out", request)
    extensions = PKI / f"{name}.ext"
    names = f"subjectAltName={alternative_names}\n" if alternative_names else ""
    extensions.write_text(f"extendedKeyUsage=serverAuth,clientAuth\n{names}")
    authority = ("-CA", PKI / "ca.crt", "-CAkey", PKI / "ca.key", "-CAcreateserial")
    run(
        *("openssl", "x509", "-req", "-in", request, *authority),
        *("-days", "3650", "-extfile", extensions, "-out", certificate),
    )


def write_kubeconfig(name: str, subject: str) -> None:
    """For a client that is known by `subject`."""
    issue(name, subject)
    server = {"server": f"https://{HOST_ADDRESS}:6443", "certificate-authority": f"{PKI}/ca.crt"}
    user = {"client-certificate": f"{PKI}/{name}.crt", "client-key": f"{PKI}/{name}.key"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kubenode",
        "clusters": [{"name": "kubenode", "cluster": server}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "kubenode", "context": {"cluster": "kubenode", "user": name}}],
    }
    path = kubeconfig(name)
    path.touch(mode=0o600)
    path.write_text(json.dumps(document, indent=2))


def kubeconfig(name: str = ADMINISTRATOR) -> Path:
    """Where the kubeconfig of a client lies."""
    return STATE / f"{name}.kubeconfig"
