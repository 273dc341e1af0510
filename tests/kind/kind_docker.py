"""Docker's daemon for a machine that has none and no systemd: Debian's packages, and its data in a folder of ours."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from kubenode.processes import ClusterError, run, run_long

STATE = Path(os.environ.get("KINDLING_KIND_STATE", Path.home() / ".cache" / "kindling-kind"))
"""Images, and what they are made of; some 15 GB."""
BRIDGE = "172.17.0.1"
"""Where containers find this machine."""
PACKAGES = {"dockerd": "docker.io", "jq": "jq", "capsh": "libcap2-bin"}
"""Debian's, by a program of each; the latter two are what `runc-within-bounds` calls."""
PID, LOG = STATE / "docker.pid", STATE / "dockerd.log"


def start() -> None:
    """Start the daemon, unless it runs.

    Raises:
        ClusterError: it does not answer within a minute.
    """
    if is_running():
        return
    STATE.mkdir(parents=True, exist_ok=True)
    _install_packages()
    # Where it is dockerd that switches forwarding on, it drops what others on this machine forward.
    run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    configuration = STATE / "daemon.json"
    configuration.write_text(json.dumps(_configuration()))
    with LOG.open("ab") as log:
        subprocess.Popen(
            ["dockerd", "--config-file", configuration],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + 60
    while not answers():
        if time.monotonic() > deadline:
            raise ClusterError(f"dockerd does not answer after 60 s: {LOG} ends with\n{LOG.read_text()[-2000:]}")
        time.sleep(0.5)


def stop() -> None:
    """End the daemon that `start` began, and its containers; nothing happens if it does not run."""
    if is_running():
        os.kill(int(PID.read_text()), signal.SIGTERM)
    while is_running():
        time.sleep(0.2)


def is_running() -> bool:
    """Whether the daemon that `start` began lives."""
    try:
        name = Path(f"/proc/{int(PID.read_text())}/comm").read_text().strip()
    except (OSError, ValueError):
        return False
    return name == "dockerd"


def answers() -> bool:
    """Whether there is a daemon, whoever has started it."""
    return shutil.which("docker") is not None and run("docker", "info", check=False).returncode == 0


def has(image: str) -> bool:
    """Whether the daemon has an image."""
    return run("docker", "image", "inspect", image, check=False).returncode == 0


def _configuration() -> dict[str, object]:
    return {
        "data-root": str(STATE / "docker"),
        "exec-root": "/run/kindling-kind",
        "pidfile": str(PID),
        "hosts": ["unix:///var/run/docker.sock"],
        "bip": f"{BRIDGE}/16",
        "mtu": _mtu(),
        "storage-driver": "overlay2",
        "oom-score-adjust": 0,  # a lower one takes CAP_SYS_RESOURCE
        "default-runtime": "within-bounds",
        "runtimes": {"within-bounds": {"path": str(Path(__file__).with_name("runc-within-bounds"))}},
    }


def _mtu() -> int:
    """Of the way out of this machine."""
    (route,) = json.loads(run("ip", "-j", "route", "get", "192.0.2.1").stdout)
    return int(Path(f"/sys/class/net/{route['dev']}/mtu").read_text())


def _install_packages() -> None:
    missing = [package for program, package in PACKAGES.items() if shutil.which(program) is None]
    if missing:
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        run_long("apt-get", "update", "-qq", environment=quiet, seconds=300)
        run_long("apt-get", "install", "-qqy", "--no-install-recommends", *missing, environment=quiet, seconds=600)
