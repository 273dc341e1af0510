"""Which of a run's processes this machine starts, and where all of them meet."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kindling_api import quantities
from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_trainer.data.inputs import TrainingRun

RANK_PORT = 29500
"""Where the first process of a run over several machines waits for the others."""

NODE_VARIABLE = "JOB_COMPLETION_INDEX"
"""Kubernetes tells each pod of an Indexed Job its number in this environment variable."""

LOCALHOST = "127.0.0.1"


def attempt_identity(run: TrainingRun) -> str:
    """By what those that take part in one attempt know one another."""
    uid = f" with UID {run.uid}" if run.uid is not None else ""
    return f"attempt {run.attempt} at {run.kind}/{run.namespace}/{run.name}{uid}"


@dataclass(frozen=True)
class Node:
    """One machine among those of a run."""

    processes: int
    """Training processes on this machine, as on each."""
    cores: int
    """The cores of this machine, over which its processes are spread."""
    index: int = 0
    """This machine's number."""
    nodes: int = 1
    """Machines of the run."""
    master: str = LOCALHOST
    """The host of the first process."""
    port: int = RANK_PORT
    """The port of the first process's rendezvous."""

    @property
    def leads(self) -> bool:
        """Whether this is the machine of the first process, which does what is to be done once."""
        return self.index == 0

    @property
    def launcher_port(self) -> int:
        """The port at which the first machine's launcher listens to those of the others."""
        return self.port + 1

    def among(self, place: int, nodes: int) -> Node:
        """This machine as number `place` of the `nodes` that take part."""
        return replace(self, index=place, nodes=nodes)

    def rank(self, local_rank: int) -> int:
        """The number, in the whole run, of a process of this machine."""
        return self.index * self.processes + local_rank

    def environment(self, local_rank: int) -> dict[str, str]:
        """torchrun's variables for one process; cores are shared out evenly."""
        return {
            "OMP_NUM_THREADS": str(max(1, self.cores // self.processes)),
            **os.environ,
            "RANK": str(self.rank(local_rank)),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.nodes * self.processes),
            "LOCAL_WORLD_SIZE": str(self.processes),
            "MASTER_ADDR": self.master,
            "MASTER_PORT": str(self.port),
        }


def node_number(environment: Mapping[str, str]) -> int:
    """The number of this process's machine, whatever its place in an elastic run; 0 where it has none."""
    node = environment.get(NODE_VARIABLE, "")
    return int(node) if node.isdecimal() else 0


def single_node(resources: TrainingResources) -> Node:
    """All processes of the run on this machine; the nodes that it asks for fold into it."""
    return Node(resources.processes, _cores(), port=_free_port())


def one_of_nodes(nodes: int, master: str, resources: TrainingResources, environment: Mapping[str, str]) -> Node:
    """This machine's place among `nodes`; `master` is the host of the first, or `host:port`.

    Raises:
        SpecError: the run asks for another number of nodes, or this one has not been told its own.
    """
    if nodes != resources.nodes:
        remedy = "start as many as the run asks for"
        raise SpecError(explain("--nodes", found=nodes, allowed=f"{resources.nodes}, as in the run", remedy=remedy))
    node = environment.get(NODE_VARIABLE, "0" if nodes == 1 else "")
    if not node.isdecimal() or int(node) >= nodes:
        allowed, remedy = f"0 to {nodes - 1}", "set it to the number of this machine, as an Indexed Job does"
        raise SpecError(explain(NODE_VARIABLE, found=node or "nothing", allowed=allowed, remedy=remedy))
    host, _, port = master.partition(":")
    cores = min(_cores(), max(1, int(quantities.cores(resources.cpu))))
    return Node(resources.processes_per_node, cores, int(node), nodes, host, int(port or RANK_PORT))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
        return port
