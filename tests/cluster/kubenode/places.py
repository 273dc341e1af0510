"""Where the test cluster keeps its files, and the addresses it uses."""

from __future__ import annotations

import os
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent
PROJECT = SOURCES.parent.parent

STATE = Path(os.environ.get("KUBENODE_STATE", "/var/lib/kubenode"))
"""What one cluster is; `down` deletes it."""
CACHE = Path(os.environ.get("KUBENODE_CACHE", Path.home() / ".cache" / "kubenode"))
"""What is worth keeping from one cluster to the next: programs and images."""
TOOLS = CACHE / "bin"

PKI = STATE / "pki"
LOGS = STATE / "log"
RUNTIME = Path("/run/kubenode")
CGROUPS = Path("/sys/fs/cgroup")

HOST_ADDRESS = "172.30.0.1"
"""Of the bridge that joins the nodes; the API server, the cluster's DNS and the registry listen here."""
BRIDGE = "kubenode0"
SERVICES, API_SERVICE = "10.96.0.0/16", "10.96.0.1"
PODS = "10.244.0.0/16"

REGISTRY = "localhost:5000"
"""Where the host pushes images; nodes pull by the same name."""
