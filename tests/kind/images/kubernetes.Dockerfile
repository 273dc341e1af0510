# One image under many names: all of Kubernetes, etcd, the storage class's provisioner and its helper, and what enforces
# NetworkPolicies. Pods pick a program by its name.
FROM python:3.11-slim-bookworm
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        iptables nftables ipset conntrack iproute2 kmod procps \
    && rm -rf /var/lib/apt/lists/*
COPY node local-path-provisioner kube-router /usr/local/bin/
RUN for program in kube-apiserver kube-controller-manager kube-scheduler kube-proxy etcd kubectl; do \
        ln -s node /usr/local/bin/$program; \
    done
