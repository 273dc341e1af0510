"""What a run may use of the machine or the cluster."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Name, Spec
from kindling_api.errors import SpecError, explain
from kindling_api.quantities import ByteSize, CpuQuantity, Duration
from kindling_api.rules import OneOf, cel
from kindling_api.v1alpha1.pod_affinity import QualifiedName
from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_api.v1alpha1.storage import StorageSpec

LabelValue = Annotated[str, Field(max_length=253)]


class Toleration(Spec):
    """A taint that the run's pods tolerate, as in Kubernetes."""

    key: LabelValue | None = None
    """The taint's key; absent, with operator Exists, means all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """How key and value are compared."""
    value: LabelValue | None = None
    """The taint's value, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; absent means all."""


DeviceName = Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[a-z0-9.-]+$", max_length=128)]


class PodResources(Spec):
    """CPU and memory of one pod."""

    cpu: CpuQuantity = "1"
    """Cores of each pod, as in `"4"` or `"500m"`."""
    memory: ByteSize = "2Gi"
    """Memory of each pod, as in `8Gi`."""


class ServeResources(PodResources):
    """CPU and memory of one pod that serves, and its GPU."""

    gpu: DeviceName | None = None
    """The resource name of the GPU that each pod has one of, as in `nvidia.com/gpu`; absent means CPU."""


class TrainingResources(Spec):
    """Nodes, processes and what each node gives. Without a cluster, nodes fold into processes of one machine."""

    nodes: Annotated[int, Field(ge=1, le=4096)] = 1
    """Number of pods, one a node."""
    processes_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    """Training processes in each pod; with `gpu`, each has a device of its own."""
    gpu: DeviceName | None = None
    """The resource name of the accelerator, as in `nvidia.com/gpu`; absent means CPU."""
    cpu: CpuQuantity = "1"
    """Cores of each pod."""
    memory: ByteSize = "4Gi"
    """Memory of each pod."""
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=32)] = {}
    """Labels that a node must carry."""
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32)] = ()
    """Taints that the pods tolerate."""

    @property
    def processes(self) -> int:
        """All processes of the run."""
        return self.nodes * self.processes_per_node


class ElasticResources(TrainingResources):
    """Nodes, processes and what each node gives; with `minNodes`, a cluster may give fewer nodes for a while. Without a
    cluster, nodes fold into processes of one machine."""

    model_config = cel(("!has(self.minNodes) || self.minNodes <= self.nodes", "minNodes must be at most nodes"))

    min_nodes: Annotated[int, Field(ge=1, le=4096)] | None = None
    """The fewest nodes over which the run goes on when others are gone or were never there; `parallelism.data` takes up
    the difference, and the steps stay the same. Absent means that it needs all of `nodes`."""


class HuggingFaceSpec(Spec):
    """Access to the Hugging Face Hub."""

    token_secret: Name | None = None
    """The Secret in this namespace that holds an access token under the key `token`, for what is private or gated;
    without a cluster the token is HF_TOKEN, or that of `hf auth login`."""


class RunControls(Spec):
    """The fields that every kind has, beside what it does; none of them changes the result."""

    storage: StorageSpec | None = None
    """Where the result is kept; absent means the default storage of the installation (or of `kindling run`)."""
    hugging_face: HuggingFaceSpec | None = None
    """How the pods read `hf://…`; absent means without a token."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The container image to use instead of the installation's; its registry must be on the chart's allow-list."""
    queue: Name | None = None
    """The Kueue LocalQueue that admits this run."""
    pod_template: PodTemplate | None = None
    """What its pods have beside what the installation gives all pods; a change holds from the next attempt on."""
    priority: Name | None = None
    """How this run stands to others: with `queue` the name of a WorkloadPriorityClass of Kueue, by which runs are
    admitted and pre-empted; without it that of the PriorityClass of its pods, one that the installation allows
    (`runs.allow.priorityClasses`). Absent means the cluster's default."""
    suspend: bool = False
    """Stop the run, keep what is committed, and start again from it when set back to false."""
    active_deadline: Duration | None = None
    """Longest time the run may take, over all attempts, before it fails."""
    ttl_after_finished: Duration | None = None
    """How long a finished run is kept before it is deleted; absent means for ever."""
    retention: Literal["Retain", "Delete"] = "Retain"
    """What deleting this document does to its data in the store."""


class Unconstrained(Spec):
    """No place of nodes is asked for."""


class Topology(OneOf):
    """How near to one another Kueue places the pods of a run (Topology-Aware Scheduling). A level is a label of nodes
    that the Topology of the queue's nodes has, as in `cloud.provider.com/topology-rack`."""

    required: QualifiedName | None = None
    """All pods within one place of this level; the run waits until one has room."""
    preferred: QualifiedName | None = None
    """Within one place of this level where one has room, else of the next wider one, and at last over several."""
    unconstrained: Unconstrained | None = None
    """Anywhere, in nodes that Kueue chooses so that gaps are filled."""


TOPOLOGY_RULE = ("!has(self.topology) || has(self.queue)", "topology needs queue: it is Kueue that places by topology")


class TrainingControls(RunControls):
    """The same for what trains, on one pod a node."""

    topology: Topology | None = None
    """How near to one another its pods are placed, where `queue` leads to nodes with a topology."""
    preflight: bool = False
    """Look at the nodes before the first step of each start, for seconds: a multiplication on each, and a transfer from
    each process to the next. A slow one is told of as `Straggling`; a transfer that does not end ends the attempt."""

    @model_validator(mode="after")
    def _placed_by_a_queue(self) -> Self:
        if self.topology is not None and self.queue is None:
            found, allowed = "a topology, and no spec.queue", "a topology of a run that Kueue admits"
            remedy = "name a LocalQueue in spec.queue, or say it by podTemplate.affinity, which no queue needs"
            raise SpecError(explain("spec.topology", found=found, allowed=allowed, remedy=remedy))
        return self


MUTABLE_FIELDS = ("suspend", "queue", "podTemplate", "ttlAfterFinished", "activeDeadline", "serve")
"""The fields of a spec that may change after creation; all others are immutable."""

CONTENT_FREE_FIELDS = frozenset(
    {
        *TrainingControls.model_fields,
        "bad_records",
        "checkpoint",
        "engine",
        "evaluation",
        "parallelism",
        "publish",
        "resources",
        "restart",
        "serve",
        "tracking",
    }
)
"""Fields (Python names) that do not change the result, and so are no part of a run's key."""
