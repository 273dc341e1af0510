"""The two documents between whoever starts a run and the process that does it.

In goes the run file: one JSON document, complete, with every reference resolved. Out comes the progress document,
rewritten while the process works and, in its final form, its last word. There is no other protocol; environment
variables carry only credentials and torchrun's own settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from kindling_api.base import Digest, Name, Spec, Status
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
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

FINAL_PROGRESS_BYTES = 4096
"""The largest final progress document: what a pod's termination message holds."""

PROGRESS_PORT = 8090
"""Where a pod serves its progress document, as `/progress`, and its figures, as `/metrics`."""

PROGRESS_PORT = 8090
"""Where a pod serves `/progress`, the progress document, and `/metrics`."""


class Input(Spec):
    """A finished product that a run reads."""

    uri: str
    """Its folder."""
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
    attempt: Annotated[int, Field(ge=1)] = 1
    """Which attempt this is; an attempt that is no longer the newest cannot commit."""
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
    """The models that judge answers, in the order in which the spec names them."""
    judge: Input | None = None
    """The model that compares the answers of evaluations."""


RunFile = DatasetBuildFile | PretrainRunFile | AlignmentRunFile

_RUN_FILE: TypeAdapter[RunFile] = TypeAdapter(Annotated[RunFile, Field(discriminator="kind")])


def read_run_file(path: Path) -> RunFile:
    """The run file at `path`, checked.

    Raises:
        pydantic.ValidationError: it was not written by `document()` of one of the models above.
    """
    return _RUN_FILE.validate_json(path.read_bytes())


class Progress(Status):
    """What a process says of its run; the last one that it writes is its last word."""

    state: Literal["Running", "Succeeded", "Failed"] = "Running"
    """Whether this is the last word, and which."""
    message: str = Field(default="", max_length=1024)
    """One sentence for people: what is going on."""
    trouble: Reason | None = None
    """What the run is held up by and keeps trying to get over, such as StorageUnreachable; `message` tells of it."""
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
