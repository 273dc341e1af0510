"""A real Kubernetes cluster on one Linux machine, without Docker, for tests.

Every node is a network namespace with its own containerd, kubelet and kube-proxy; the control plane (etcd, API server,
controller manager, scheduler, CoreDNS) and a registry run on the host. All of it is upstream's code, built from Go.
"""
