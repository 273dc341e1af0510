"""How fast the operator makes the children of many runs, how large it grows, and what a kill -9 in the middle does.

    python bench/operator/bench.py [--runs 1000] [--json FILE]
    python bench/operator/bench.py --documents 10000 [--active 100]

A real etcd and API server run on this machine, beside the operator and this script: no controllers and no nodes, so
Jobs stay without pods, and what is measured is the operator. PretrainRuns with a dataset given by URI wait for nothing.
There are three parts: all children of all runs; the same with the operator killed half-way and a second replica taking
over; a restart on top of everything. With `--documents` it is asked instead what documents cost that are over: all but
some have succeeded, and a fresh operator looks at a tenth of them, a third, and all. etcd and kube-apiserver are those
that `make cluster` builds. KubeRay's figure is the one that it publishes; no peer is run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
sys.path[:0] = [str(PROJECT / "bench"), str(PROJECT / "tests" / "cluster")]

from common import options_of, write_figures
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import load_kube_config

from kindling_operator.cluster import Cluster
from kubenode.api_server import ApiServer, free_port

PUBLISHED = {"KubeRay: 1,000 RayClusters, a second": 3.7}
"""As KubeRay publishes it, on a cluster of its own and until the pods are ready; not measured here."""

QUIET_SECONDS = 30
"""For which it is watched when nothing happens."""

_SINCE = {"lastTransitionTime": "2026-05-01T12:00:00Z"}
SUCCEEDED = {
    "phase": "Succeeded",
    "attempt": 1,
    "observedGeneration": 1,
    "conditions": [
        {"type": "Accepted", "status": "True", "reason": "Valid", "message": "The spec is valid.", **_SINCE},
        {"type": "Succeeded", "status": "True", "reason": "Completed", "message": "It is done.", **_SINCE},
        {"type": "Reconciling", "status": "False", "reason": "Settled", "message": "It is done.", **_SINCE},
    ],
    "key": "sha256:" + 64 * "0",
    "storage": {"uri": "s3://bench/models", "credentialsSecret": "s3"},
    "result": {
        "digest": "sha256:" + 64 * "1",
        "uri": "s3://bench/models/models/0000000000000000",
        "model": "s3://bench/models/models/0000000000000000/model",
        "steps": 1000,
        "tokens": 65_536_000,
        "loss": 3.1,
    },
}
"""What a finished run leaves behind."""

GOALS = {"runs a second": 8.0, "reconcile p99 (ms)": 250.0, "operator RSS (MiB)": 256.0, "takeover (s)": 20.0}

CHILDREN = (("batch/v1", "Job"), ("v1", "ConfigMap"), ("v1", "Service"), ("networking.k8s.io/v1", "NetworkPolicy"))


def main() -> None:
    arguments = parse_arguments()
    if problem := ApiServer.missing():
        sys.exit(problem)
    with tempfile.TemporaryDirectory() as scratch, ApiServer(Path(scratch) / "server") as server:
        figures = asyncio.run(measure(server, Path(scratch), arguments))
    print_table(figures)
    write_figures(arguments.json, {"figures": figures, "published": PUBLISHED})


def parse_arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--documents", type=int, help="measure how the operator grows with so many")
    parser.add_argument("--active", type=int, default=100, help="of the documents, those that are at work")
    return parser.parse_args()


async def measure(server: ApiServer, scratch: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """All parts, one after the other, on one API server."""
    configuration = Configuration()
    configuration.connection_pool_maxsize = 64
    await load_kube_config(config_file=str(server.kubeconfig()), client_configuration=configuration)
    cluster = Cluster(ApiClient(configuration))
    try:
        await prepare(cluster, ("speed", "faults", "many"))
        operators = Operators(server.kubeconfig("operator"), scratch)
        try:
            if arguments.documents is not None:
                return await growth(cluster, operators, arguments.documents, arguments.active)
            figures = await speed(cluster, operators, arguments.runs)
            figures |= await faults(cluster, operators, arguments.runs)
            return figures | await restart(operators, 2 * arguments.runs)
        finally:
            operators.end()
    finally:
        await cluster.close()


async def speed(cluster: Cluster, operators: Operators, runs: int) -> dict[str, Any]:
    """All runs applied at once to an operator that is up."""
    operator = operators.start("speed")
    await operator.leads()
    began = time.monotonic()
    await apply_runs(cluster, "speed", runs)
    applied = time.monotonic() - began
    await until(cluster, operators, "speed", runs)
    seconds = time.monotonic() - began
    metrics = operator.metrics()
    return {
        "runs": runs,
        "seconds to apply them": round(applied, 1),
        "seconds to all children": round(seconds, 1),
        "runs a second": round(runs / seconds, 1),
        "reconcile p50 (ms)": quantile(metrics, 0.5),
        "reconcile p99 (ms)": quantile(metrics, 0.99),
        "reconciles": int(reconciles(metrics)),
        "errors": int(sum(value for name, value in metrics if name.startswith("kindling_reconcile_errors_total"))),
        "operator RSS (MiB)": operator.peak_mebibytes(),
        "operator CPU (s)": operator.cpu_seconds(),
    }


async def faults(cluster: Cluster, operators: Operators, runs: int) -> dict[str, Any]:
    """The leader is killed half-way; a replica that has stood by goes on."""
    standby = operators.start("standby")
    await asyncio.sleep(5)
    await apply_runs(cluster, "faults", runs)
    await until(cluster, operators, "faults", runs // 2)
    killed = time.monotonic()
    operators.kill("speed")
    await standby.leads()
    takeover = time.monotonic() - killed
    await until(cluster, operators, "faults", runs)
    duplicates, foreign = await check(cluster, "faults", runs)
    return {"takeover (s)": round(takeover, 1), "duplicates": duplicates, "children in excess": foreign}


async def restart(operators: Operators, runs: int) -> dict[str, Any]:
    """A fresh operator reads everything that is there."""
    operators.kill("standby")
    operator = operators.start("standby")  # under the same name the Lease is its own already
    began = time.monotonic()
    await operator.leads()
    while reconciles(operator.metrics()) < runs:
        await asyncio.sleep(0.2)
    figures = {"seconds to look at all runs after a restart": round(time.monotonic() - began, 1)}
    await asyncio.sleep(10)
    return figures | {"operator RSS after a restart (MiB)": operator.peak_mebibytes()}


async def growth(cluster: Cluster, operators: Operators, documents: int, active: int) -> dict[str, Any]:
    """What a fresh operator takes for so many documents, of which some are at work and the others have succeeded."""
    figures: dict[str, Any] = {}
    await apply_runs(cluster, "many", active)
    over = 0
    for total in sorted({max(active + 1, documents // part) for part in (10, 3, 1)}):
        await finish_runs(cluster, "many", range(over, total - active))
        over = total - active
        operator = operators.start("many")
        began = time.monotonic()
        await operator.leads()
        await until(cluster, operators, "many", active)
        while reconciles(operator.metrics()) < total:
            await asyncio.sleep(2)  # an answer counts all documents
        seconds = time.monotonic() - began
        before, asked = operator.cpu_seconds(), reconciles(operator.metrics())
        await asyncio.sleep(QUIET_SECONDS)
        metrics = operator.metrics()
        figures |= {
            f"{total}: seconds to look at all": round(seconds, 1),
            f"{total}: CPU for that (s)": round(before, 1),
            f"{total}: reconcile p50, p99 (ms)": f"{quantile(metrics, 0.5)}, {quantile(metrics, 0.99)}",
            f"{total}: RSS (MiB)": operator.peak_mebibytes(),
            f"{total}: reconciles a minute, when nothing happens": round(
                60 / QUIET_SECONDS * (reconciles(metrics) - asked)
            ),
            f"{total}: CPU then (%)": round(100 * (operator.cpu_seconds() - before) / QUIET_SECONDS, 1),
        }
        operators.kill("many")
    return figures


def reconciles(metrics: list[tuple[str, float]]) -> float:
    """How often the operator has looked at a document."""
    return sum(value for name, value in metrics if name.startswith("kindling_reconcile_seconds_count"))


async def finish_runs(cluster: Cluster, namespace: str, numbers: range) -> None:
    """Create runs that have succeeded, as their status says, sixteen at a time."""
    slots = asyncio.Semaphore(16)
    path = f"/apis/kindling.dev/v1alpha1/namespaces/{namespace}/pretrainruns"

    async def one(number: int) -> None:
        async with slots:
            run = a_run(namespace, f"over-{number:05}")
            await cluster.create(run, manager="bench")
            name = run["metadata"]["name"]
            body = {"status": SUCCEEDED}
            await cluster._call("PATCH", f"{path}/{name}/status", body, "application/merge-patch+json", {})

    await asyncio.gather(*(one(number) for number in numbers))


async def prepare(cluster: Cluster, namespaces: tuple[str, ...]) -> None:
    """Namespaces, our kinds, and the operator's rights."""
    for path in sorted((PROJECT / "crds").glob("*.yaml")):
        await post(cluster, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(path.read_text()))
    for name in (*namespaces, "kindling"):
        await post(cluster, "/api/v1/namespaces", {"metadata": {"name": name}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
    binding = {"metadata": {"name": "operator"}, "roleRef": role, "subjects": [{"kind": "User", "name": "operator"}]}
    await post(cluster, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
    for _ in range(100):
        if await cluster.installed("kindling.dev/v1alpha1", "PretrainRun"):
            return
        await asyncio.sleep(0.1)


async def post(cluster: Cluster, path: str, item: dict[str, Any]) -> None:
    """Create an object of a kind that the operator has nothing to do with."""
    await cluster._call("POST", path, item, "application/json", {})


async def apply_runs(cluster: Cluster, namespace: str, runs: int) -> None:
    """Create them all, sixteen at a time."""
    slots = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with slots:
            await cluster.create(a_run(namespace, f"run-{number:05}"), manager="bench")

    await asyncio.gather(*(one(number) for number in range(runs)))


def a_run(namespace: str, name: str) -> dict[str, Any]:
    """Two pods, tensor parallel, with a dataset that is there."""
    return {
        "apiVersion": "kindling.dev/v1alpha1",
        "kind": "PretrainRun",
        "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "dataset": {"uri": "s3://bench/dataset"},
            "model": {"preset": "llama-124m"},
            "training": {"steps": 1000, "batch": {"tokens": 65536}},
            "parallelism": {"tensor": 2},
            "resources": {"nodes": 2},
        },
    }


async def until(cluster: Cluster, operators: Operators, namespace: str, runs: int) -> None:
    """Wait until so many runs have their Job, which is the last child to be made."""
    while await count(cluster, namespace) < runs:
        operators.check()
        await asyncio.sleep(0.25)


async def count(cluster: Cluster, namespace: str) -> int:
    """Jobs in a namespace, by a request that returns only one of them."""
    page = await cluster._call("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs", None, "", {"limit": "1"})
    return len(page["items"]) + int(page["metadata"].get("remainingItemCount", 0))


async def check(cluster: Cluster, namespace: str, runs: int) -> tuple[int, int]:
    """Children of a kind beyond the first of a run, and attempts beyond the first."""
    duplicates = 0
    for api_version, kind in CHILDREN:
        made: Counter[str] = Counter()
        async for item in cluster.list(api_version, kind, namespace, labels="kindling.dev/name"):
            made[item["metadata"]["labels"]["kindling.dev/name"]] += 1
        assert len(made) == runs, f"{kind}: {len(made)} of {runs} runs have one"
        duplicates += sum(made.values()) - runs
    attempts = [
        item["status"]["attempt"] async for item in cluster.list("kindling.dev/v1alpha1", "PretrainRun", namespace)
    ]
    return duplicates, sum(attempts) - runs


@dataclass
class Running:
    """One operator process."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    async def leads(self) -> None:
        """Wait until it leads."""
        while ("kindling_leader", 1.0) not in self.metrics():
            self.check()
            await asyncio.sleep(0.2)

    def check(self) -> None:
        """Give up when it has ended, with the end of its log, which goes with the folder that it is in."""
        if self.process.poll() is not None:
            lines = self.log.read_text(errors="replace").splitlines()
            sys.exit("\n".join([f"the operator has ended with exit code {self.process.returncode}:", *lines[-30:]]))

    def metrics(self) -> list[tuple[str, float]]:
        """What it says of itself; nothing while it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return []
        return [(name, float(value)) for name, value in (line.rsplit(" ", 1) for line in lines if line[:1] != "#")]

    def peak_mebibytes(self) -> int:
        """Its largest resident size so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024

    def cpu_seconds(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Operators:
    """The operators that this script has started."""

    def __init__(self, kubeconfig: Path, scratch: Path) -> None:
        self._kubeconfig = kubeconfig
        self._scratch = scratch
        self._running: dict[str, Running] = {}
        images = {image: image for image in ("trainer", "dataprep", "serve")}
        settings = {"images": images, "storage": {"uri": "s3://bench/models", "credentialsSecret": "s3"}}
        (scratch / "settings.json").write_text(json.dumps(settings))

    def start(self, name: str) -> Running:
        """Start one under a name, which is its identity in the Lease."""
        port, path = free_port(), self._scratch / f"{name}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "kindling_operator", str(self._scratch / "settings.json"), "--port", str(port)],
                env={**os.environ, "KUBECONFIG": str(self._kubeconfig), "POD_NAME": name},
                stdout=log,
                stderr=log,
            )
        self._running[name] = Running(process, port, path)
        return self._running[name]

    def kill(self, name: str) -> None:
        """Without warning."""
        process = self._running.pop(name).process
        process.send_signal(signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        """Give up when one of them has ended."""
        for operator in self._running.values():
            operator.check()

    def end(self) -> None:
        """End all that run."""
        for name in list(self._running):
            self.kill(name)


def quantile(metrics: list[tuple[str, float]], share: float) -> float:
    """Milliseconds within which this share of reconciles ended, as `histogram_quantile` of Prometheus estimates it."""
    found = [
        (re.findall(r'le="([^"]+)"', name), value) for name, value in metrics if "reconcile_seconds_bucket" in name
    ]
    buckets: Counter[float] = Counter()
    for (bound,), value in found:
        buckets[float(bound.replace("+Inf", "inf"))] += value  # type: ignore[assignment]
    wanted, lower, below = share * buckets[float("inf")], 0.0, 0.0
    for bound, value in sorted(buckets.items()):
        if value >= wanted:
            width = bound - lower if bound != float("inf") else 0.0
            return round(1000 * (lower + width * (wanted - below) / max(value - below, 1)), 1)
        lower, below = bound, value
    return float("nan")


def print_table(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        goal = f"   (goal {GOALS[name]:g})" if name in GOALS else ""
        print(f"{name:46} {value:>8}{goal}")
    for name, rate in PUBLISHED.items():
        print(f"{name:46} {rate:>8}   (published)")


if __name__ == "__main__":
    main()
