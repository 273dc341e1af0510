"""What one document's line says while it runs and when it is done: pure text and figures, for both kinds of screen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import (
    AlignmentProgress,
    DatasetProgress,
    DatasetResult,
    ModelResult,
    TrainingProgress,
)
from kindling_cli.figures import counted, duration, short_count
from kindling_cli.remarks import on_steps

RowState = Literal["waiting", "running", "stopping", "done", "reused", "stopped", "failed"]


@dataclass
class StageRow:
    """One document of the flow, as the screen shows it."""

    title: str
    """`Kind/name`, as `--only` and `--set` take it."""
    state: RowState = "waiting"
    progress: Progress = field(default_factory=Progress)
    seconds: float = 0.0
    """Time since its process was started."""
    stage_began: float = 0.0
    """When the stage under way began, likewise."""

    @property
    def stage(self) -> str:
        """The stage under way, in the process' own words."""
        part = self.progress.dataset or self.progress.training
        return (part.stage if part else "") or "starting"

    @property
    def percent(self) -> float:
        """How much of the document's work is done, 0 to 100."""
        part = self.progress.dataset or self.progress.training
        return part.percent if part else 0.0

    @property
    def is_counted(self) -> bool:
        """Whether percentage and time left are about the stage under way: those of a training are about its steps."""
        training = self.progress.training
        return self.progress.dataset is not None or (training is not None and training.stage == "training")

    @property
    def eta(self) -> str:
        """Time left as the process estimates it; empty where it does not yet, or is past what was estimated."""
        part = self.progress.dataset or self.progress.training
        if part is None or not part.eta_seconds or not self.is_counted:
            return ""
        return f"{duration(part.eta_seconds)} left"

    @property
    def stage_seconds(self) -> float:
        """Time since the stage under way began."""
        return max(0.0, self.seconds - self.stage_began)

    @property
    def remarks(self) -> list[str]:
        """What a finished dataset's inputs could not give, or gave in an odd way, and what was too short to learn."""
        result = self.progress.result
        if isinstance(result, ModelResult):
            return on_steps(result.steps) + ([result.divergence.sentence] if result.divergence else [])
        if not isinstance(result, DatasetResult) or (damage := result.damage) is None:
            return []
        lost = f"{damage.unread:,} of {damage.bytes:,} bytes of the inputs could not be read"
        return [lost, *damage.remarks] if damage.unread else list(damage.remarks)

    @property
    def details(self) -> str:
        """The key figures: of the result when there is one, else of the work under way."""
        progress = self.progress
        if progress.failure is not None:
            return ""
        if isinstance(progress.result, DatasetResult):
            return _joined(_dataset_result(progress.result))
        if isinstance(progress.result, ModelResult):
            return _joined(_model_result(progress.result))
        if progress.dataset is not None:
            return _joined(_dataset_figures(progress.dataset)) or progress.message
        if progress.training is not None and not self.is_counted:
            return progress.message.removeprefix(f"{self.stage}, ")
        if progress.training is not None:
            slow = [
                f"process {one.rank} is {one.factor:.1f} times as slow as others" for one in progress.stragglers or ()
            ]
            return _joined(_training_figures(progress.training) + slow) or progress.message
        return progress.message


def _joined(parts: list[str]) -> str:
    return " · ".join(parts)


def _dataset_result(result: DatasetResult) -> list[str]:
    counts = result.documents
    return [
        f"{counted(counts.read, 'document')} read, {counts.kept:,} kept",
        f"{short_count(result.tokens)} tokens",
        f"vocabulary {result.vocab_size:,}",
    ]


def _model_result(result: ModelResult) -> list[str]:
    parts = [counted(result.steps, "step"), f"{short_count(result.tokens)} tokens"]
    if result.validation_loss is not None:
        parts.append(f"validation loss {result.validation_loss:.3f}")
    if result.perplexity is not None:
        parts.append(f"perplexity {result.perplexity:.1f}")
    return parts


def _dataset_figures(progress: DatasetProgress) -> list[str]:
    parts = []
    if progress.documents:
        parts.append(counted(progress.documents, "document"))
    if progress.documents_per_second:
        parts.append(f"{short_count(progress.documents_per_second)} documents/s")
    return parts


def _slow(progress: Progress) -> list[str]:
    return [f"process {one.rank} is {one.factor:.1f} times as slow as others" for one in progress.stragglers or ()]


def _training_figures(progress: TrainingProgress) -> list[str]:
    parts = []
    if progress.steps:
        parts.append(f"step {progress.step:,} of {progress.steps:,}")
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.perplexity is not None:
        parts.append(f"perplexity {progress.perplexity:.1f}")
    if isinstance(progress, AlignmentProgress):
        named = (("reward", progress.reward), ("accuracy", progress.accuracy))
        parts += [f"{name} {value:.3f}" for name, value in named if value is not None]
    if progress.tokens_per_second:
        parts.append(f"{short_count(progress.tokens_per_second)} tokens/s")
    return parts
