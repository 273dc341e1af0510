"""One training process: builds the parts of the run and takes its steps.

Started by `kindling_trainer.launch.launcher`, or by torchrun: `torchrun --nproc-per-node N -m kindling_trainer.train
RUNFILE`.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from operator import length_hint
from pathlib import Path

import torch
import torch.distributed as dist

from kindling_api import logs
from kindling_api.errors import EXIT_SIGNALLED, SpecError, explain
from kindling_api.quantities import seconds
from kindling_api.v1alpha1.products import CheckpointManifest
from kindling_api.v1alpha1.runfile import AlignmentRunFile, DatasetBuildFile, PretrainRunFile, Progress, read_run_file
from kindling_api.v1alpha1.sizes import flops_per_token
from kindling_api.v1alpha1.status import CheckpointStatus, TrainingProgress
from kindling_runtime.exit import about_run
from kindling_runtime.failure import recorded_failure
from kindling_runtime.progress import ProgressWriter
from kindling_runtime.signals import StopFlag, Stopped
from kindling_storage.lock import LOCK, confirm
from kindling_storage.outage import outage
from kindling_trainer.align.rewards.confinement import hide_from_functions
from kindling_trainer.checkpoint.save import Saver
from kindling_trainer.data.inputs import TrainingRun, learns_tokens
from kindling_trainer.finish import finish
from kindling_trainer.launch.node import attempt_identity, node_number
from kindling_trainer.launch.workers import DUMP_STACKS, ENDING, HEARTBEAT, RENDEZVOUS
from kindling_trainer.loop import pretrain
from kindling_trainer.loop.instability import UnstableError
from kindling_trainer.loop.objective import Evaluation, Item
from kindling_trainer.loop.preflight import Preflight, preflight
from kindling_trainer.loop.restore import restore, take_weights_of
from kindling_trainer.loop.setup import Setup
from kindling_trainer.loop.skipping import heal, is_in_vain, leave_out_again, watched
from kindling_trainer.loop.step import Stepper, Taken
from kindling_trainer.loop.stragglers import StragglerWatch, by_node, seconds_a_step
from kindling_trainer.optim.adamw import set_learning_rate
from kindling_trainer.optim.schedule import learning_rate
from kindling_trainer.parallel.copies import check_copies
from kindling_trainer.parallel.mesh import Ranks, join
from kindling_trainer.telemetry.metrics import Metrics
from kindling_trainer.telemetry.peak_flops import peak_flops
from kindling_trainer.telemetry.reporter import Reporter, row_interval

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Train; 0 when the model is finished, 128 + signal when asked to stop."""
    stop = StopFlag()
    options = _options(arguments)
    if threads := os.environ.get("OMP_NUM_THREADS"):  # torch may have been loaded with another number
        torch.set_num_threads(int(threads))
    faulthandler.enable()
    faulthandler.register(DUMP_STACKS)
    rank = int(os.environ.get("RANK", "0"))
    logs.set_up(options.log, level=logging.INFO if rank == 0 else logging.WARNING)
    _quieten()
    with recorded_failure(options.folder, rank, options.attempt):
        run = read_run_file(options.runfile)
        assert not isinstance(run, DatasetBuildFile)
        if options.nodes is not None and isinstance(run, PretrainRunFile):
            run = run.model_copy(update={"spec": run.spec.at_size(options.nodes)})
        about_run(run)
        if isinstance(run, AlignmentRunFile):
            hide_from_functions(run)
        code = Training(run, options, stop).go()
    if dist.is_initialized():
        dist.destroy_process_group()
    return code


def _quieten() -> None:
    """Leave out what libraries say each time and does not apply."""
    # One process is what was meant.
    warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")
    # Nobody changes the logits in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    # The gradient's norm and the export take two collectives instead of one, on few bytes and once a run.
    logging.getLogger("torch.distributed.tensor._redistribute").setLevel(logging.ERROR)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m kindling_trainer.train", description=__doc__)
    parser.add_argument("runfile", type=Path)
    logs.add_option(parser)
    parser.add_argument("--progress", type=Path, help="where the progress document is written")
    parser.add_argument("--attempt", type=int, default=1, help="which start of the run this is")
    parser.add_argument("--generation", type=int, default=0, help="how often the attempt's processes started before")
    parser.add_argument("--started", type=float, default=time.time(), help="when the first start was (Unix time)")
    parser.add_argument("--folder", type=Path, help="where signs of life and the error that ends this process go")
    parser.add_argument("--nodes", type=int, help="machines that take part, where the run is elastic")
    parser.add_argument("--lock", help="the token of the right to write in the run's folder")
    return parser.parse_args(arguments)


class Training:
    """The run, from its parts to its finished model."""

    def __init__(self, run: TrainingRun, options: argparse.Namespace, stop: StopFlag) -> None:
        self.run, self.stop, self.keep_best = run, stop, run.spec.training.keep_best
        self.signs = options.folder if os.environ.get("LOCAL_RANK", "0") == "0" else None
        """Where the machine's first process gives its signs of life."""
        start = f"start {options.generation + 1} of {attempt_identity(run)}"
        ranks = join(run.spec.layout(), run.spec.resources, partial(_waiting, options), start)
        nodes = ranks.from_each(node_number(os.environ))
        looked = preflight(ranks, nodes, partial(_tell, options)) if run.spec.preflight else Preflight()
        self.setup = setup = _prepare(run, ranks)
        self.finished = self.saved = restore(setup)
        """Optimizer steps done, and those of them that are in a checkpoint."""
        self.last_save = time.monotonic()
        facts = _checkpoint_facts(setup, ranks.from_first(options.attempt))
        self.confirm = partial(_confirm, setup, options.lock)
        self.reporter = _reporter(setup, options, self.finished) if ranks.leads else None
        self.saver = Saver(
            setup.store, facts, keep=run.spec.checkpoint.keep, group=ranks.background,
            committing=self._committing, committed=self._committed,
        )  # fmt: skip
        self.save_due = False
        """Whether a checkpoint is wanted and not yet begun."""
        leave_out_again(setup)
        self.spikes = watched(setup)
        self.stepper = Stepper(
            setup.model, setup.optimizer, setup.objective, run.spec.training, ranks, spikes=self.spikes
        )
        self.stragglers = StragglerWatch(ranks, nodes, even=isinstance(run, PretrainRunFile), slow=looked.slow)
        if self.reporter is not None and looked.slow:
            self.reporter.straggling(by_node(looked.slow, nodes, self.finished))
        self.interval = row_interval(setup.steps)

    def go(self) -> int:
        """Take the steps that are left, and finish the model."""
        self.stop.defer()
        try:
            if self.finished == 0 and isinstance(self.run, AlignmentRunFile):
                self._evaluate()  # what comes later is told beside what the base did
            if self.setup.compiled and self.reporter is not None:
                self.reporter.compiling()
            if self.finished and self._is_evaluated() and self.setup.best.lacks(self.finished):
                self._judge()  # what was evaluated before the checkpoint that the run goes on from
            while self.finished < self.setup.steps and not self.setup.best.is_enough(self.keep_best):
                self._advance()
            self._sign(ENDING)
            self._save()
            self.saver.wait()  # evaluating beside the last save has ended in a corrupted heap, once in hundreds of runs
            self.saver.release()
            self._take_best()
            evaluation = self._evaluate(whole=True)
        except Stopped as stopped:
            self._sign(ENDING)
            self._save()
            self.saver.wait()
            return EXIT_SIGNALLED + stopped.signal
        self._stage("exporting")
        finish(self.setup, self.reporter, evaluation, self.confirm)
        return 0

    def _advance(self) -> None:
        """One step, and what is due after it. One that may not be taken comes again, without what it was to read."""
        try:
            self._step()
        except UnstableError as error:
            self._heal(error)
            return
        self.save_due |= self._wants_save()
        signal, due, waiting, *own = self.setup.ranks.largest(
            self.stop.signal,
            self.save_due,
            self.saver.is_writing and bool(outage()),
            *self.stragglers.figures(self.finished),
        )
        if self.reporter is not None and own:
            self.reporter.own_work([seconds_a_step(figure) for figure in own])
            self.reporter.straggling(self.stragglers.heard(self.finished, own))
        if signal:
            raise Stopped(signal)
        best = False
        if self.keep_best is not None and self._is_evaluated():
            best = self._judge()
        elif self.finished % self.run.spec.evaluation.every == 0 and self.finished < self.setup.steps:
            self._evaluate()
        if best or (due and not waiting):  # while one waits for the store, training goes on rather than wait for it
            self._save()
        self.saver.raise_if_failed()

    def _is_evaluated(self) -> bool:
        """Whether the weights are chosen among those of now and others."""
        every = self.run.spec.evaluation.every
        return self.keep_best is not None and (self.finished % every == 0 or self.finished == self.setup.steps)

    def _judge(self) -> bool:
        """Try the model, and say whether it is the best so far."""
        loss = self.setup.ranks.from_first(self._evaluate().loss)
        if loss is None:
            raise SpecError(
                explain(
                    "spec.training.keepBest",
                    found="nothing held out",
                    allowed="a validation loss to choose by",
                    remedy="give a validation part, or remove keepBest",
                )
            )
        return self.setup.best.judge(self.finished, loss)

    def _take_best(self) -> None:
        """Give the model the weights that are to be kept."""
        best = self.setup.best.found
        if self.keep_best is None or best is None:
            return
        if self.reporter is not None:
            log.info("the best validation loss, %.4f, was after step %d of %d", best.loss, best.step, self.finished)
        if best.step != self.finished:
            take_weights_of(self.setup, best.step)

    def _heal(self, error: UnstableError) -> None:
        """What a step was to read is left out; where that was in vain, the run goes back to a checkpoint."""
        if is_in_vain(self.setup, self.finished):
            self.saver.wait()
            if self.setup.ranks.leads:
                self.confirm()
        skipped = heal(self.setup, self.finished, error, self.spikes)
        if skipped.rolled_back_to is not None:
            self.finished = self.saved = skipped.rolled_back_to
            self.save_due = False
            if self.reporter is not None:
                self.reporter.rolled_back(self.finished, self.setup.skipped)
        if self.reporter is not None:
            self.reporter.passed_over(self.setup.damaged)
            self.reporter.skipped(skipped, loss=error.loss, norm=error.norm)

    def _step(self) -> None:
        """Take one step, and write it down if it is one of those that are."""
        began = time.perf_counter()
        done, training = self.finished, self.run.spec.training
        rate = learning_rate(training.schedule, training.optimizer.learning_rate, done, self.setup.steps)
        set_learning_rate(self.setup.optimizer, rate)
        local_batch = self.setup.objective.local_batch(done, self._interruptible)
        with self.stragglers.step():
            taken = self.stepper.take(local_batch, done)
        self.finished += 1
        written = self.finished % self.interval == 0 or self.finished == self.setup.steps
        loss, figures = self._whole(taken) if written else (0.0, {})
        if self.reporter is not None:
            self.reporter.stepped(self.finished, time.perf_counter() - began, has_row=written)
            if written:
                self.reporter.row(self.finished, loss=loss, rate=rate, norm=taken.norm, figures=figures)
        else:
            self._sign(HEARTBEAT)

    def _whole(self, taken: Taken) -> tuple[float, dict[str, float]]:
        """The loss and the figures of a step over all processes."""
        loss = taken.whole_loss
        if loss is None:
            loss = float(self.setup.ranks.sum_over_batch(taken.loss))
        if not taken.figures:
            return loss, {}
        sums, counts = self.setup.ranks.sum_over_batch(torch.stack(list(taken.figures.values()))).T.tolist()
        means = (total / count if count else 0.0 for total, count in zip(sums, counts, strict=True))
        return loss, dict(zip(taken.figures, means, strict=True))

    def _wants_save(self) -> bool:
        """Whether this process wants a checkpoint now; by the clock, the first one speaks for all."""
        every = self.run.spec.checkpoint.every
        if isinstance(every, int):
            return self.finished % every == 0
        return self.setup.ranks.leads and time.monotonic() - self.last_save >= seconds(every)

    def _save(self) -> None:
        if self.saved == self.finished or self.finished % self.setup.round_steps:
            return
        self._stage("saving")
        setup = self.setup
        check_copies(setup.model, setup.ranks, self.finished)
        tokens = self.finished * setup.plan.tokens
        recent = self.spikes.recent if self.spikes is not None else None
        skipped = tuple(setup.skipped) or None
        self.saver.save(
            setup.state(), step=self.finished, tokens=tokens, skipped=skipped, recent=recent, best=setup.best.found
        )
        if not self.run.spec.checkpoint.async_:
            self.saver.wait()
        self.saved, self.last_save, self.save_due = self.finished, time.monotonic(), False

    def _committing(self) -> None:
        """Whoever goes on from the checkpoint wants the curves up to it; and nobody does, if this is a latecomer's."""
        self.confirm()
        if self.reporter is not None:
            self.reporter.upload()

    def _committed(self, newest: CheckpointStatus) -> None:
        if self.reporter is not None:
            self.reporter.saved(newest)

    def _evaluate(self, *, whole: bool = False) -> Evaluation:
        """Try the model, and write down what was found."""
        self._stage("evaluating")
        evaluation = self.setup.objective.evaluate(whole=whole, interruptible=self._interruptible)
        if self.reporter is not None:
            return self.reporter.evaluated(self.finished, evaluation, final=whole)
        return evaluation

    def _interruptible(self, batches: Iterable[Item]) -> Iterator[Item]:
        total = length_hint(batches)
        for done, batch in enumerate(batches):
            (signal,) = self.setup.ranks.largest(self.stop.signal)
            if signal:
                raise Stopped(signal)
            if self.reporter is not None:
                self.reporter.went_through(done, total)
            yield batch

    def _sign(self, name: str) -> None:
        if self.signs is not None:
            (self.signs / name).touch()

    def _stage(self, stage: str) -> None:
        if self.reporter is not None:
            self.reporter.stage(stage)


def _prepare(run: TrainingRun, ranks: Ranks) -> Setup:
    if isinstance(run, AlignmentRunFile):
        from kindling_trainer.align.method import prepare  # not above: pretraining needs none of it

        return prepare(run, ranks)
    return pretrain.prepare(run, ranks)


def _waiting(options: argparse.Namespace, here: int, processes: int) -> None:
    """Say, as the first process, that others have yet to come, and that this is no standstill."""
    if os.environ.get("RANK") == "0":
        _tell(options, f"waiting for other nodes: {here} of {processes} processes are here")
        if options.folder is not None:
            (options.folder / RENDEZVOUS).touch()


def _tell(options: argparse.Namespace, message: str) -> None:
    """What goes on before there is a reporter."""
    ProgressWriter(options.progress).write(Progress(message=message, training=TrainingProgress(stage="starting")))


def _confirm(setup: Setup, token: str | None) -> None:
    """Make sure that no other attempt has taken the run's folder over; `token` is absent where nobody holds it."""
    if token is not None:
        confirm(setup.store, LOCK, token)


def _checkpoint_facts(setup: Setup, attempt: int) -> CheckpointManifest:
    return CheckpointManifest(
        key=setup.run.key,
        files=[],
        step=0,
        tokens=0,
        attempt=attempt,
        layout=setup.ranks.layout,
        dataset=setup.origin.dataset,
        tokenizer=setup.vocabulary.digest,
        shape=setup.shape,
        vocab_size=setup.vocabulary.size,
        adapter=setup.run.spec.adapter if isinstance(setup.run, AlignmentRunFile) else None,
    )


def _reporter(setup: Setup, options: argparse.Namespace, finished: int) -> Reporter:
    reporter = Reporter(
        ProgressWriter(options.progress),
        Metrics(setup.store, finished),
        heartbeat=None if options.folder is None else options.folder / HEARTBEAT,
        steps=setup.steps,
        step_tokens=setup.plan.tokens,
        flops_per_token=flops_per_token(setup.shape, setup.padded_vocab, setup.plan.context, setup.lora),
        peak_flops=peak_flops(setup.ranks, setup.run.spec.training),
        started=options.started,
        aligning=isinstance(setup.run, AlignmentRunFile),
        of_tokens=learns_tokens(setup.run),
    )
    reporter.passed_over(setup.damaged)
    return reporter


if __name__ == "__main__":
    sys.exit(main())
