"""PretrainRun: a dataset in, a language model out."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from kindling_api.base import API_VERSION, Metadata, Spec
from kindling_api.errors import SpecError, explain
from kindling_api.rules import cel
from kindling_api.v1alpha1.checkpoint import CheckpointSpec, EvaluationSpec, InitializeSpec, RestartSpec
from kindling_api.v1alpha1.model import ModelSpec
from kindling_api.v1alpha1.parallelism import Layout, ParallelismSpec, check_divides, layout_of
from kindling_api.v1alpha1.publish import PublishSpec
from kindling_api.v1alpha1.resources import TOPOLOGY_RULE, ElasticResources, TrainingControls
from kindling_api.v1alpha1.status import PretrainRunStatus
from kindling_api.v1alpha1.storage import DatasetReference
from kindling_api.v1alpha1.tracking import TrackingSpec
from kindling_api.v1alpha1.training import BatchPlan, PretrainingSpec, batch_plan, default_sequences

DEGREES_RULE = (
    "self.parallelism.data == 'auto'"
    " ? (self.resources.nodes * self.resources.processesPerNode) % (self.parallelism.tensor * self.parallelism.pipeline"
    " * self.parallelism.context * self.parallelism.replicas) == 0"
    " : self.parallelism.tensor * self.parallelism.pipeline * self.parallelism.context * self.parallelism.replicas"
    " * int(self.parallelism.data) == self.resources.nodes * self.resources.processesPerNode",
    "parallelism: tensor × pipeline × context × data × replicas must equal resources.nodes × processesPerNode",
)

ELASTIC_RULE = (
    "!has(self.resources.minNodes) || (self.parallelism.data == 'auto' && (self.resources.minNodes"
    " * self.resources.processesPerNode) % (self.parallelism.tensor * self.parallelism.pipeline"
    " * self.parallelism.context * self.parallelism.replicas) == 0)",
    "resources: with minNodes, parallelism.data must be auto, and tensor × pipeline × context × replicas must divide"
    " minNodes × processesPerNode",
)


class PretrainRunSpec(TrainingControls):
    """A dataset in, a language model out."""

    model_config = cel(DEGREES_RULE, ELASTIC_RULE, TOPOLOGY_RULE)

    dataset: DatasetReference
    """What to train on."""
    model: ModelSpec
    """What to train."""
    training: PretrainingSpec
    """The recipe."""
    parallelism: ParallelismSpec = ParallelismSpec()
    """How processes share the work."""
    resources: ElasticResources = ElasticResources()
    """What the run may use."""
    checkpoint: CheckpointSpec = CheckpointSpec()
    """When it is saved."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How the model is evaluated on the way."""
    restart: RestartSpec = RestartSpec()
    """What happens when a process dies or hangs."""
    initialize: InitializeSpec | None = None
    """Weights to start from."""
    publish: PublishSpec | None = None
    """Put the finished model on the Hugging Face Hub."""
    tracking: TrackingSpec | None = None
    """Show the run's curves in Weights & Biases or MLflow."""

    @model_validator(mode="after")
    def _can_be_laid_out(self) -> Self:
        self.batch_plan()
        self.sizes()
        return self

    def layout(self) -> Layout:
        """The degrees of parallelism, complete and checked against the processes and the model.

        Raises:
            SpecError: a product or a division fails.
        """
        layout = layout_of(self.parallelism, self.resources.processes)
        check_divides(layout, self.model.shape())
        return layout

    def batch_plan(self, dataset_tokens: int | None = None) -> BatchPlan:
        """One optimizer step, cut over the layout.

        Args:
            dataset_tokens: of the training part; where they are not known, a batch that is left open is the largest.

        Raises:
            SpecError: the batch does not divide.
        """
        context = self.model.shape().context
        sequences = default_sequences(self.training, context, dataset_tokens)
        return batch_plan(self.training.batch, context, self.layout(), sequences=sequences)

    def at_size(self, nodes: int) -> Self:
        """The same work over exactly so many nodes."""
        resources = self.resources.model_copy(update={"nodes": nodes, "min_nodes": None})
        return self.model_copy(update={"resources": resources})

    def sizes(self) -> tuple[int, ...]:
        """The numbers of nodes over which the run may go, ascending; `nodes` alone where it is not elastic.

        Raises:
            SpecError: it cannot go over `minNodes`, or `nodes`, of them.
        """
        most, fewest = self.resources.nodes, self.resources.min_nodes
        if fewest is None:
            return (most,)
        if fewest > most:
            allowed, remedy = f"at most resources.nodes = {most}", "lower it, or raise nodes"
            raise SpecError(explain("spec.resources.minNodes", found=fewest, allowed=allowed, remedy=remedy))
        if self.parallelism.data != "auto":
            found, allowed = self.parallelism.data, "auto, with resources.minNodes: it takes up the difference"
            raise SpecError(explain("spec.parallelism.data", found=found, allowed=allowed, remedy="leave it out"))
        sizes = tuple(nodes for nodes in range(1, most + 1) if self._why_not(nodes) is None)
        possible = tuple(nodes for nodes in sizes if nodes >= fewest)
        if (why := self._why_not(fewest)) is not None:
            allowed = f"a number of nodes at which the model and the batch divide: {' or '.join(map(str, sizes))}"
            remedy = f"use {possible[0]}, the smallest above it that works ({why})"
            raise SpecError(explain("spec.resources.minNodes", found=fewest, allowed=allowed, remedy=remedy))
        return possible

    def _why_not(self, nodes: int) -> str | None:
        """Why the run cannot go over so many nodes; None where it can."""
        try:
            self.at_size(nodes).batch_plan()
        except SpecError as error:
            return str(error)
        return None


class PretrainRun(Spec):
    """A dataset in, a language model out: multi-process training with checkpoints that survive any kill."""

    api_version: Literal["kindling.dev/v1alpha1"] = API_VERSION
    kind: Literal["PretrainRun"] = "PretrainRun"
    metadata: Metadata
    spec: PretrainRunSpec
    """What to train."""
    status: PretrainRunStatus | None = None
    """How far it is; written by the operator."""
