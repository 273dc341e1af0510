"""What a run says of itself while it trains: the progress document, the curves, the log, and a sign of life."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal

from kindling_api.bounds import INCIDENT_MESSAGE, clip
from kindling_api.logs import say
from kindling_api.v1alpha1.incidents import Incident
from kindling_api.v1alpha1.products import ModelManifest, SkippedStep
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import AlignmentProgress, CheckpointStatus, TrainingProgress
from kindling_api.v1alpha1.stragglers import SlowProcess
from kindling_api.v1alpha1.training import BatchPlan
from kindling_runtime.progress import ProgressWriter
from kindling_trainer.data.inputs import TrainingRun
from kindling_trainer.loop.evaluate import Sample
from kindling_trainer.loop.objective import Evaluation
from kindling_trainer.loop.win_rate import AnswerScores
from kindling_trainer.telemetry.metrics import EVALUATION, Metrics, Row, perplexity

WARM_UP_STEPS = 2
"""The first steps of a start, which compile and fill caches, foretell nothing of the time that the others take."""
ETA_STEPS = 50
"""The estimate follows the mean of so many of the newest steps."""
SHOWN = {
    "reward": "reward",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "accuracy",
    "rewards/exactAnswer": "accuracy",
    "kl": "kl",
}
"""Figures of a step that the progress document shows, under its own names."""
LARGEST_CURVE = 2000
"""Rows of training steps in metrics.jsonl, about; longer runs write every n-th step."""
REPORTED_INCIDENTS = 4
"""Of an attempt, the newest: whoever follows it remembers those before."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """What the report at the end is about."""

    run: TrainingRun
    manifest: ModelManifest
    plan: BatchPlan
    rows: list[Row]
    """The rows of metrics.jsonl."""
    seconds: float
    """From the first start of this launch to now."""


class Reporter:
    """What the first process reports. Times are in seconds; `started` is on the wall clock (`time.time`)."""

    def __init__(
        self, writer: ProgressWriter, metrics: Metrics, *, heartbeat: Path | None, steps: int, step_tokens: int,
        flops_per_token: float, peak_flops: float | None, started: float, aligning: bool = False,
        of_tokens: bool = True,
    ) -> None:  # fmt: skip
        """`of_tokens` says whether losses are in nats a token, and so have a perplexity."""
        self._writer, self._metrics, self._heartbeat = writer, metrics, heartbeat
        self._step_tokens, self._flops, self._peak, self._started = step_tokens, flops_per_token, peak_flops, started
        self._of_tokens = of_tokens
        self._now = (AlignmentProgress if aligning else TrainingProgress)(stage="starting", steps=steps)
        self._part = ""  # of the stage that is done
        self._checkpoint: CheckpointStatus | None = None
        self._slow: list[SlowProcess] | None = None  # not known yet
        self._incidents: list[Incident] = []
        self._damaged = 0  # checkpoints that were told of
        self._own: dict[str, float] = {}  # seconds of own work, until the next row
        self._seconds: list[float] = []  # of the steps since the last row
        self._taken = 0  # steps, by this process
        self._recent: deque[float] = deque(maxlen=ETA_STEPS)  # seconds of steps
        self._counted = self._seconds_in_steps()

    def stage(self, stage: str) -> None:
        """Say what is being done."""
        self._part = ""
        self._update(force=True, stage=stage)
        self._say(self._place)
        self.beat()

    def went_through(self, done: int, total: int) -> None:
        """Say how far the stage is: so many batches or answers, out of a total that is 0 where nobody knows it."""
        self._part = f", {done:,} of {total:,}" if total else f", {done:,} done"
        self._update()
        self.beat()

    def compiling(self) -> None:
        """Say that the first step will take long. That is no sign of life: a launcher allows a first step more time."""
        self._part = ""
        self._update(force=True, stage="compiling")
        self._say(f"{self._place}: the first step takes minutes")

    def beat(self) -> None:
        """Say that the run is alive; a launcher that hears nothing for long starts it again."""
        if self._heartbeat is not None:
            os.utime(self._heartbeat)

    def stepped(self, step: int, seconds: float, *, has_row: bool) -> None:
        """The `step`-th step has been taken, in so many seconds. Progress tells of it now, or with its row."""
        self._seconds.append(seconds)
        self._taken += 1
        if self._taken > WARM_UP_STEPS:
            self._recent.append(seconds)
        self._part = ""
        self._update(
            write=not has_row, stage="training", step=step, percent=round(100 * step / self._now.steps, 1),
            tokens=step * self._step_tokens,
            eta_seconds=round((self._now.steps - step) * fmean(self._recent)) if self._recent else None,
        )  # fmt: skip
        self.beat()

    def row(self, step: int, *, loss: float, rate: float, norm: float, figures: Mapping[str, float] = {}) -> None:
        """Write down the step that was just taken, the `step`-th, and the speed since the last one written down."""
        in_steps = sum(self._seconds)
        step_seconds = in_steps / len(self._seconds)
        self._seconds.clear()
        self._counted += in_steps
        speed = self._step_tokens / step_seconds
        mfu = speed * self._flops / self._peak if self._peak else None
        shown: dict[str, Any] = {SHOWN[name]: value for name, value in figures.items() if name in SHOWN}
        self._metrics.add(
            {
                "step": step, "tokens": step * self._step_tokens, "loss": loss, "lr": rate, "grad_norm": norm,
                "tokens_per_second": speed, "mfu": mfu, "step_seconds": step_seconds, "seconds_in_steps": in_steps,
                "time": time.time(), **self._own, **figures,
            }
        )  # fmt: skip
        self._own = {}
        self._update(
            loss=loss, perplexity=self._perplexity(loss), learning_rate=rate, gradient_norm=norm,
            tokens_per_second=speed, mfu=mfu,
            goodput=min(1.0, self._counted / max(1e-9, time.time() - self._started)),
            **shown,
        )  # fmt: skip
        self._say(f"step {step} of {self._now.steps}: loss {loss:.4f}, {speed:,.0f} tokens/s")

    def own_work(self, seconds: Sequence[float]) -> None:
        """What a step takes each process without waiting for others; the next row has the median and the most. What is
        missing of `step_seconds` is waiting."""
        self._own = {"own_seconds": median(seconds), "most_own_seconds": max(seconds)}

    def straggling(self, slow: list[SlowProcess] | None) -> None:
        """Others wait for these processes; where there are none, for nobody in particular; None where nobody knows."""
        if slow is None:
            return
        since = {one.node: one.step for one in self._slow or ()}
        for one in slow:
            if one.node not in since:
                what = "process %d, on node %d, is slow: its own work takes %.1f times as long as that of others"
                log.warning(what, one.rank, one.node, one.factor)
        if since and not slow:
            log.warning("no process is slow any more")
        self._slow = [one.model_copy(update={"step": since.get(one.node, one.step)}) for one in slow]
        self._update(force=since.keys() != {one.node for one in slow})

    def rolled_back(self, finished: int, skipped: Sequence[SkippedStep]) -> None:
        """The run goes on from a checkpoint of so many steps, whose later ones come again; what was left out in them
        stays so."""
        left_out = [row for row in self._metrics.rows if "skipped" in row and row["step"] > finished]
        self._metrics.go_back(finished)
        kept = [(step.step, step.why) for step in skipped]
        for row in left_out:
            if (row["step"], row["why"]) in kept:
                self._metrics.add(row)
        self._seconds.clear()
        self._counted, self._checkpoint = self._seconds_in_steps(), None

    def skipped(self, step: SkippedStep, *, loss: float, norm: float) -> None:
        """Write down that a step was not taken, and comes again with other windows."""
        figures = {"skipped_loss": loss, "skipped_grad_norm": norm}
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        windows = [one.document() for one in step.windows]
        self._metrics.add(
            {
                "step": step.step, "skipped": windows, "why": step.why, "rolled_back_to": step.rolled_back_to,
                "time": time.time(), **finite,
            }
        )  # fmt: skip
        if step.rolled_back_to is None:
            what = f"step {step.step} is not taken ({step.why}): what it read is left out"
        else:
            what = (
                f"goes back to the checkpoint of step {step.rolled_back_to} ({step.why}): what was read from step "
                f"{step.step} on is left out"
            )
        log.warning("%s", what)
        self._mended("StepSkipped", f"{what}; `kindling inspect RUN --step {step.step}` names its documents")
        self.beat()

    def passed_over(self, damaged: Sequence[str]) -> None:
        """All checkpoints so far that were damaged, and so are not what the run goes on from."""
        for what in damaged[self._damaged :]:
            self._mended("CheckpointDamaged", f"{what}; an older one is taken, where there is one")
        self._damaged = len(damaged)

    def _mended(self, reason: Literal["StepSkipped", "CheckpointDamaged"], what: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        sentence = f"{what[:1].upper()}{what[1:]}."
        self._incidents.append(Incident(time=now, reason=reason, message=clip(sentence, INCIDENT_MESSAGE)))
        self._update(force=True)

    def evaluated(self, step: int, found: Evaluation, *, final: bool) -> Evaluation:
        """Write down what an evaluation found; `final` is the one at the end, over the whole part.

        Returns:
            The evaluation, with the fraction of its answers that the reward model prefers to the base's.
        """
        found, loss = self._compared(found), found.loss
        row: Row = {"step": step, "validation_loss": loss, "perplexity": self._perplexity(loss)}
        row |= {f"{EVALUATION}{name}": value for name, value in found.figures.items()}
        if final:
            row["final"] = True
        if found.samples:
            row["samples"] = [_sample(sample) for sample in found.samples]
        if found.answer_scores is not None:
            row["judgement"] = asdict(found.answer_scores)
        self._metrics.add(row)
        self._update(validation_loss=loss)
        if loss is not None:
            self._say(f"evaluated after step {step}: loss {loss:.4f}")
        self.beat()
        return found

    def upload(self) -> None:
        """Bring the curves in the store up to date. This may be called from another thread."""
        self._metrics.upload()

    def saved(self, newest: CheckpointStatus) -> None:
        """A checkpoint has been committed. This may be called from another thread."""
        self._checkpoint = newest
        say(log, f"saved step {newest.step} at {newest.uri}", checkpoint=newest.document())

    @property
    def last_loss(self) -> float | None:
        """Training loss of the last step written down."""
        return next((row["loss"] for row in reversed(self._metrics.rows) if "loss" in row), None)

    def losses(self) -> list[tuple[int, float]]:
        """The steps written down, each with its training loss."""
        return [(row["step"], row["loss"]) for row in self._metrics.rows if "loss" in row]

    def first_evaluation(self) -> dict[str, float]:
        """The figures of the evaluation before the first step, by name; none where there was none."""
        row = self._first_row()
        figures = {name.removeprefix(EVALUATION): row[name] for name in row if name.startswith(EVALUATION)}
        return figures | {name: row[name] for name in ("validation_loss",) if name in row}

    def _compared(self, found: Evaluation) -> Evaluation:
        scored = self._first_row().get("judgement")
        if scored is None or found.answer_scores is None:
            return found
        rate = found.answer_scores.win_rate(AnswerScores(**scored))
        return found if rate is None else replace(found, figures=found.figures | {"win_rate": rate})

    def _first_row(self) -> Row:
        """Of the evaluation before the first step; nothing where there was none."""
        return next((row for row in self._metrics.rows if row["step"] == 0), {})

    def course(self, run: TrainingRun, manifest: ModelManifest, plan: BatchPlan) -> Course:
        """All that the report needs."""
        return Course(run, manifest, plan, self._metrics.rows, time.time() - self._started)

    def close(self) -> None:
        """Write down the rest."""
        self._metrics.close()

    def _seconds_in_steps(self) -> float:
        """Those of this launch that have led to where the run is."""
        return sum(
            row.get("seconds_in_steps", 0.0) for row in self._metrics.rows if row.get("time", 0) >= self._started
        )

    def _perplexity(self, loss: float | None) -> float | None:
        return perplexity(loss) if loss is not None and self._of_tokens else None

    def _update(self, *, force: bool = False, write: bool = True, **changes: object) -> None:
        self._now = self._now.model_copy(update={name: _shown(value) for name, value in changes.items()})
        if not write:
            return
        progress = Progress(
            message=self._place,
            training=self._now,
            checkpoint=self._checkpoint,
            stragglers=self._slow,
            incidents=self._incidents[-REPORTED_INCIDENTS:] or None,
        )
        self._writer.write(progress, force=force)

    @property
    def _place(self) -> str:
        return f"{self._now.stage}{self._part}, step {self._now.step} of {self._now.steps}"

    def _say(self, sentence: str) -> None:
        """A line of the log, with the figures of the progress document."""
        say(log, sentence, **self._now.document())


def _sample(said: Sample) -> dict[str, Any]:
    return {name: value for name, value in asdict(said).items() if value is not None}


def _shown(value: object) -> object:
    """Progress is for display, in tables too; the exact figures are in the curves and in the result."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def row_interval(steps: int) -> int:
    """Every how many steps a row is written."""
    return -(-steps // LARGEST_CURVE)
