"""The two documents between whoever starts a run and the process that does it.

In goes the run file: one JSON document, complete, with every reference resolved; the process's arguments may say whose
it must be. Out comes the progress document, rewritten while the process works and, in its final form, its last word.
There is no other protocol; environment variables carry only credentials and torchrun's own settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from kindling_api.base import Digest, Name, Spec, Status
from kindling_api.bounds import PROGRESS_MESSAGE
from kindling_api.errors import WrongRunFileError, explain
from kindling_api.v1alpha1.alignment_method import ModuleName
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.incidents import Incident
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_api.v1alpha1.resizes import Resize
from kindling_api.v1alpha1.status import (
    AlignmentProgress,
    AlignmentResult,
    CheckpointStatus,
    DatasetProgress,
    DatasetResult,
    Failure,
    ModelResult,
    Reason,
    TrainingProgress,
)
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.v1alpha1.stragglers import SlowProcess

PROGRESS_PORT = 8090
"""Where a pod serves its progress document, as `/progress`, and its figures, as `/metrics`."""


class Input(Spec):
    """A finished product that a run reads."""

    uri: str
    """The folder of the product."""
    digest: Digest | None = None
    """Digest of its manifest; absent where the user gave a URI and nobody has read it yet."""
    storage: StorageSpec | None = None
    """How to reach it, where that differs from the run's own storage."""


class RunFileBase(Spec):
    """What every run file holds."""

    name: Name
    """The document's name."""
    namespace: str = "default"
    """The document's namespace."""
    uid: str | None = None
    """The document's UID on its cluster, which no other document of its name has; absent on one machine."""
    attempt: Annotated[int, Field(ge=1)] = 1
    """Which attempt this is; an attempt that is no longer the newest cannot commit."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """Restarts counted before this attempt, which leaves the others of `restart.maxRestarts`."""
    key: Digest
    """Identity of the work: equal keys mean equal results."""
    output: StorageSpec
    """The store in which the product is kept."""


class DatasetBuildFile(RunFileBase):
    """All that a data-preparation process needs. `key` covers the spec; the process adds what the sources hold."""

    kind: Literal["DatasetBuild"] = "DatasetBuild"
    spec: DatasetBuildSpec


class PretrainRunFile(RunFileBase):
    """All that a training process needs."""

    kind: Literal["PretrainRun"] = "PretrainRun"
    spec: PretrainRunSpec
    dataset: Input
    initialize: Input | None = None


class AlignmentRunFile(RunFileBase):
    """All that an alignment process needs."""

    kind: Literal["AlignmentRun"] = "AlignmentRun"
    spec: AlignmentRunSpec
    base: Input
    reward_models: tuple[Input, ...] = ()
    """The models that score answers, in the order in which the spec names them."""
    judge: Input | None = None
    """The model that compares the answers of evaluations."""
    reward_modules: tuple[ModuleName, ...] | None = None
    """The modules whose functions may be rewards, as the installation has it; absent means any: the user's own machine.
    Where they are given, functions run confined."""


RunFile = DatasetBuildFile | PretrainRunFile | AlignmentRunFile

_RUN_FILE: TypeAdapter[RunFile] = TypeAdapter(Annotated[RunFile, Field(discriminator="kind")])


def read_run_file(path: Path, *, uid: str | None = None, key: str | None = None) -> RunFile:
    """The run file at `path`, checked.

    Args:
        uid: of the document that the process was started for; None where it has not been told.
        key: of the work that it was started for; likewise.

    Raises:
        pydantic.ValidationError: it was not written by `document()` of one of the models above.
        WrongRunFileError: it is another document's, or of other work.
    """
    run = _RUN_FILE.validate_json(path.read_bytes())
    if uid in (None, run.uid) and key in (None, run.key):
        return run
    found = f"the run file of {run.kind}/{run.namespace}/{run.name} with UID {run.uid} and key {run.key}"
    allowed, remedy = f"UID {uid or run.uid} and key {key or run.key}", "nothing is to be done: another attempt follows"
    raise WrongRunFileError(explain(str(path), found=found, allowed=allowed, remedy=remedy))


class Progress(Status):
    """What a process says of its run; the last one that it writes is its last word."""

    uid: str | None = None
    """UID of the document that this is about, told over the network: an address may have become another pod's."""
    attempt: int | None = None
    """Which attempt at it; told likewise."""
    state: Literal["Running", "Succeeded", "Failed"] = "Running"
    """Whether this is the last word, and which."""
    message: str = Field(default="", max_length=PROGRESS_MESSAGE)
    """One sentence for people: what is going on."""
    trouble: Reason | None = None
    """An outage that the run waits out, such as StorageUnreachable; `message` describes it."""
    dataset: DatasetProgress | None = None
    """How far a build is."""
    training: TrainingProgress | AlignmentProgress | None = None
    """How far a training run is."""
    checkpoint: CheckpointStatus | None = None
    """The newest committed checkpoint."""
    result: ModelResult | AlignmentResult | DatasetResult | None = None
    """What came out, in the last word of a run that succeeded."""
    failure: Failure | None = None
    """What went wrong, in the last word of a run that failed."""
    restarts: int = 0
    """Times its processes were started again in this attempt, in the same pods."""
    last_failure: Failure | None = None
    """Why they were the last time."""
    nodes: int | None = None
    """Nodes over which it goes, where it is elastic; 0 while it waits for enough of them."""
    resizes: list[Resize] | None = None
    """The newest changes of that number in this attempt, in order."""
    stragglers: list[SlowProcess] | None = None
    """The slow ones of a training run's processes, the slowest of each node; absent while that is not known yet."""
    incidents: list[Incident] | None = None
    """The newest things that this attempt has mended by itself, in order."""
