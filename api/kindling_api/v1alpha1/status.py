"""What is said about a run: progress, result, failure, and conditions with their reasons, which are spelt only here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue

from kindling_api.base import Digest, Status
from kindling_api.bounds import ATTEMPT_MESSAGE, CONDITION_MESSAGE, FAILURE_MESSAGE
from kindling_api.errors import (
    ConflictError,
    KindlingError,
    RefusedError,
    UnreachableError,
    UserError,
    WithdrawnError,
    WrongRunFileError,
)
from kindling_api.v1alpha1.best import Best
from kindling_api.v1alpha1.divergence import Divergence
from kindling_api.v1alpha1.incidents import MOST_INCIDENTS, Incident
from kindling_api.v1alpha1.resizes import MOST_RESIZES, NodesStatus, Resize
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.v1alpha1.stragglers import MOST_STRAGGLERS, Straggler

Phase = Literal["Pending", "Waiting", "Queued", "Running", "Restarting", "Suspended", "Succeeded", "Failed"]

ConditionType = Literal[
    "Accepted", "DatasetReady", "BaseReady", "Queued", "Running", "Restarting", "Suspended", "Succeeded", "Failed",
    "Diverged", "Straggling", "Serving", "Reconciling", "Stalled",
]  # fmt: skip

Reason = Literal[
    # Accepted
    "Valid", "InvalidSpec", "NameTooLong",
    # DatasetReady, BaseReady
    "Ready", "Building", "NotFound", "ReferenceFailed",
    # Queued, Running, Restarting, Suspended
    "Admitted", "WaitingForAdmission", "Unschedulable", "ImagePullFailed", "QuotaExceeded", "SecretMissing",
    "CannotStart", "StorageUnreachable", "HeldElsewhere", "Starting", "Started", "RankFailed", "NodeLost",
    "WaitingForNodes", "Evicted", "Hung", "SuspendedByUser", "Resumed", "WrongRunFile", "PartialStart", "WeightsDiffer",
    # Succeeded, Failed
    "Completed", "UserError", "InternalError", "OutOfMemory", "RestartsExhausted", "DeadlineExceeded", "EngineMissing",
    "KueueMissing", "PriorityMissing",
    # Diverged, Straggling
    "LossRose", "SlowProcess", "EvenPace",
    # Reconciling
    "Progressing", "Settled",
]  # fmt: skip


def reason_of(error: KindlingError) -> Reason:
    """Why a run that ended with this error ended."""
    if isinstance(error, UnreachableError):
        return "StorageUnreachable"
    if isinstance(error, ConflictError):
        return "HeldElsewhere"
    if isinstance(error, WrongRunFileError):
        return "WrongRunFile"
    return "UserError" if isinstance(error, UserError) else "InternalError"


def refused_by(error: BaseException) -> bool | None:
    """Whether the store refused the key, as a status tells it: not at all where it did not."""
    return isinstance(error, RefusedError | WithdrawnError) or None


class Condition(Status):
    """One fact about the run, as in Kubernetes' own conditions."""

    type: ConditionType
    """What the fact is about."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Reason
    """Why, as a constant."""
    message: str = Field(max_length=CONDITION_MESSAGE)
    """Why, as a sentence that says what to do."""
    last_transition_time: str
    """When `status` last changed (RFC 3339)."""
    observed_generation: int | None = None
    """The generation of the spec that this is about."""


class Failure(Status):
    """How an attempt ended that did not succeed."""

    reason: Reason
    """The cause, as a constant."""
    message: str = Field(max_length=FAILURE_MESSAGE)
    """The cause, as a sentence."""
    attempt: int = 1
    """Which attempt."""
    pod: str | None = None
    """The pod that failed first."""
    rank: int | None = None
    """The training process that failed first."""
    exit_code: int | None = None
    """The exit code of the process."""
    signal: str | None = None
    """The signal that ended it, as in `SIGKILL`."""
    refused: bool | None = None
    """Whether the store was there and refused the key, or what was asked with it."""
    time: str | None = None
    """When (RFC 3339)."""


def is_secondary(failure: Failure) -> bool:
    """Whether this failure only tells that other processes were lost, as RankFailed without exit code and signal does:
    the cause is theirs to tell."""
    return failure.reason == "RankFailed" and failure.exit_code is None and failure.signal is None


class AttemptStatus(Status):
    """One attempt: a set of pods that were started together, and end together."""

    attempt: int
    """The attempt's number, from 1."""
    started: str
    """When it was decided on (RFC 3339)."""
    uid: str | None = None
    """UID of its Job or RayJob, once that was seen."""
    running: str | None = None
    """When all its pods ran (RFC 3339)."""
    ended: str | None = None
    """When its end was seen (RFC 3339)."""
    reason: Reason | None = None
    """How it ended, as a constant."""
    message: str | None = Field(default=None, max_length=ATTEMPT_MESSAGE)
    """How it ended, as a sentence."""
    refused: bool | None = None
    """Whether it ended because the store refused the key."""
    step: int | None = None
    """Optimizer steps done when it was last heard of."""
    saved: int | None = None
    """The step of the newest checkpoint at its end."""
    restarts: int | None = None
    """Times its processes were started again in the same pods."""
    slow_nodes: Annotated[list[str] | None, Field(max_length=MOST_STRAGGLERS)] = None
    """Nodes whose processes others waited for when it ended; the pods of later attempts prefer other ones."""
    productive_seconds: float | None = None
    """Time in steps that count, of this attempt and those before it since `startTime`."""


class InputStatus(Status):
    """A product that the run reads, fixed when it first started."""

    field: str
    """Where the spec refers to it, as in `spec.dataset`."""
    uri: str
    """The folder of the product."""
    digest: Digest | None = None
    """Digest of its manifest; absent where the spec gives a URI."""
    storage: StorageSpec | None = None
    """How to reach it, where that differs from the run's own storage."""


class CheckpointStatus(Status):
    """The newest committed checkpoint."""

    step: int
    """Optimizer steps done."""
    uri: str
    """The folder of the product."""
    digest: str
    """Digest of its manifest."""
    time: str | None = None
    """When it was committed (RFC 3339)."""
    seconds: float | None = None
    """How long it took, from the copy in memory to the commit."""


class DocumentCounts(Status):
    """Documents read, kept and removed; read = kept + the sum of removed."""

    read: int = 0
    """Records found in the sources."""
    kept: int = 0
    """Documents in the result."""
    removed: dict[str, int] = {}
    """Documents removed, by the rule set that removed them."""


MOST_REMARKS = 5
"""On what of the inputs could not be read."""


class InputDamage(Status):
    """What of the inputs could not be read, or was passed over; the ledger has every place."""

    bytes: int
    """Bytes of all inputs, as stored."""
    unread: int = 0
    """Of these, the bytes that could not be read, or not to be relied on."""
    places: int = 0
    """Places in files that they lie at."""
    remarks: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=MOST_REMARKS)] = []
    """The places that cost most, and what was ignored without loss: each with its file, offset and bytes."""


class DatasetProgress(Status):
    """How far a build is."""

    stage: str = ""
    """The stage under way."""
    percent: float = 0.0
    """Percentage of the whole build that is done."""
    documents: int = 0
    """Documents done in this stage."""
    documents_per_second: float = 0.0
    """Speed of this stage."""
    eta_seconds: int | None = None
    """Time left, as estimated."""


class TrainingProgress(Status):
    """How far a training run is."""

    stage: str = ""
    """Starting, training, evaluating, saving or exporting."""
    percent: float = 0.0
    """Percentage of the steps that are done."""
    step: int = 0
    """Optimizer steps done."""
    steps: int = 0
    """Optimizer steps in all."""
    tokens: int = 0
    """Tokens seen."""
    loss: float | None = None
    """Training loss of the last step reported (nats a token)."""
    perplexity: float | None = None
    """e to the loss."""
    validation_loss: float | None = None
    """Loss of the last evaluation."""
    learning_rate: float | None = None
    """The learning rate of the last step."""
    gradient_norm: float | None = None
    """The norm of the last step's gradient, before clipping."""
    tokens_per_second: float | None = None
    """Over all processes, without evaluation and checkpoints."""
    mfu: float | None = None
    """Model FLOPs utilisation, where the hardware's peak is known."""
    goodput: float | None = None
    """Fraction of the time since the start that went into steps that count."""
    eta_seconds: int | None = None
    """Time left, as estimated."""


class AlignmentProgress(TrainingProgress):
    """How far an alignment run is."""

    reward: float | None = None
    """Mean reward."""
    reward_margin: float | None = None
    """Chosen less rejected."""
    kl: float | None = None
    """Divergence from the base model."""
    accuracy: float | None = None
    """Pairs ranked rightly, or answers that are right."""


class DatasetResult(Status):
    """A finished dataset."""

    digest: str
    """Digest of its manifest."""
    uri: str
    """The folder of the product."""
    documents: DocumentCounts = DocumentCounts()
    """What was read, kept and removed."""
    tokens: int = 0
    """Tokens in all shards."""
    vocab_size: int = 0
    """Tokens that the tokenizer knows."""
    damage: InputDamage | None = None
    """What of the inputs could not be read; absent where everything was."""


class ModelResult(Status):
    """A finished model."""

    digest: str
    """Digest of the run's manifest."""
    uri: str
    """The run's folder."""
    model: str
    """The model's folder, in Hugging Face form."""
    steps: int = 0
    """Optimizer steps; with `best`, up to the weights that were kept."""
    tokens: int = 0
    """Tokens seen."""
    loss: float | None = None
    """Last training loss."""
    validation_loss: float | None = None
    """Loss on the validation part."""
    perplexity: float | None = None
    """e to the validation loss."""
    divergence: Divergence | None = None
    """How far the loss is from its best, where it ended well above it; absent where it did not."""
    best: Best | None = None
    """With `training.keepBest`: the evaluation by which the weights were chosen."""
    published: str | None = None
    """Where it is on the Hugging Face Hub, with the commit; absent without `publish`."""


class AlignmentResult(ModelResult):
    """A finished aligned model."""

    evaluation: dict[str, float] = {}
    """Figures of the evaluation, by name."""
    endpoint: str | None = None
    """Where it is served."""


MOST_ATTEMPTS = 10
"""Attempts that a status remembers."""

_KEYED_BY_TYPE: dict[str, JsonValue] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}


class RunStatus(Status):
    """What every kind's status holds."""

    observed_generation: int | None = None
    """The generation of the spec that this status is about."""
    phase: Phase = "Pending"
    """For display; conditions say more."""
    attempt: int = 0
    """The current attempt."""
    restarts: int = 0
    """Restarts that count against `restart.maxRestarts`: none after eviction, pre-emption or the loss of a node."""
    key: str | None = None
    """The identity of the work; it names the product's folder."""
    storage: StorageSpec | None = None
    """Where its products are kept, fixed when the document was accepted: changes of the default do not move it."""
    inputs: list[InputStatus] = []
    """What the run reads: its lineage."""
    start_time: str | None = None
    """When its pods were first allowed to start, or were again after a suspension (RFC 3339)."""
    completion_time: str | None = None
    """When it succeeded or failed (RFC 3339)."""
    progress_time: str | None = None
    """When `progress` last moved (RFC 3339)."""
    conditions: Annotated[list[Condition], Field(json_schema_extra=_KEYED_BY_TYPE)] = []
    """Facts with reasons."""
    attempts: Annotated[list[AttemptStatus], Field(max_length=MOST_ATTEMPTS)] = []
    """The newest attempts, in order."""
    last_failure: Failure | None = None
    """How the last failed attempt ended."""


class DatasetBuildStatus(RunStatus):
    """How far a build is."""

    progress: DatasetProgress | None = None
    """How far."""
    result: DatasetResult | None = None
    """What came out."""


class PretrainRunStatus(RunStatus):
    """How far a training run is."""

    progress: TrainingProgress | None = None
    """How far."""
    nodes: NodesStatus | None = None
    """Over how many nodes it goes; absent where it is not elastic."""
    resizes: Annotated[list[Resize] | None, Field(max_length=MOST_RESIZES)] = None
    """The newest changes of that number, in order; absent where there was none."""
    stragglers: Annotated[list[Straggler] | None, Field(max_length=MOST_STRAGGLERS)] = None
    """The pods that others wait for, one a node, the slowest first; absent where there are none."""
    incidents: Annotated[list[Incident] | None, Field(max_length=MOST_INCIDENTS)] = None
    """The newest things that went wrong and were mended on the way, in order; absent where there were none."""
    checkpoint: CheckpointStatus | None = None
    """The newest committed checkpoint."""
    result: ModelResult | None = None
    """What came out."""


class AlignmentRunStatus(RunStatus):
    """How far an alignment run is."""

    progress: AlignmentProgress | None = None
    """How far."""
    stragglers: Annotated[list[Straggler] | None, Field(max_length=MOST_STRAGGLERS)] = None
    """The pods that others wait for, one a node, the slowest first; absent where there are none."""
    incidents: Annotated[list[Incident] | None, Field(max_length=MOST_INCIDENTS)] = None
    """The newest things that went wrong and were mended on the way, in order; absent where there were none."""
    checkpoint: CheckpointStatus | None = None
    """The newest committed checkpoint."""
    result: AlignmentResult | None = None
    """What came out."""
