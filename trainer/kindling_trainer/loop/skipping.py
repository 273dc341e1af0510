"""What a run leaves out when a step may not be taken, and what it remembers for that."""

from __future__ import annotations

from kindling_api.errors import UserError
from kindling_api.v1alpha1.products import SkippedStep
from kindling_api.v1alpha1.runfile import PretrainRunFile
from kindling_api.v1alpha1.training import Instability
from kindling_trainer.loop.instability import Spikes, UnstableError
from kindling_trainer.loop.pretrain import Pretraining
from kindling_trainer.loop.setup import Setup


def leave_out_again(setup: Setup) -> None:
    """What was left out before the checkpoint that the run goes on from, stays so."""
    if isinstance(setup.objective, Pretraining):
        setup.objective.leave_out(window for step in setup.skipped for window in step.windows)


def watched(setup: Setup) -> Spikes | None:
    """The steps with which others are compared, where the run asks for that."""
    if not isinstance(setup.objective, Pretraining):
        return None
    spec = _spec(setup)
    if spec.spike is None:
        return None
    schedule = setup.run.spec.training.schedule.cosine
    assert schedule is not None
    return Spikes(spec, warm_up=round(schedule.warmup_fraction * setup.steps), recent=setup.recent)


def leave_out(setup: Setup, finished: int, error: UnstableError) -> SkippedStep:
    """Leave out what the step after `finished` ones was to read, so that it comes again with what follows.

    Raises:
        UserError: as many steps as may be were left out before, or the run is no pretraining, whose data has an
            order that can go on elsewhere.
    """
    objective = setup.objective
    if not isinstance(objective, Pretraining):
        raise error
    if len(setup.skipped) >= _spec(setup).at_most:
        if not setup.skipped:
            raise error
        before = ", ".join(str(each.step) for each in setup.skipped)
        raise UserError(f"{error} What was to be read in steps {before} was left out before.") from error
    windows = objective.windows(finished)
    objective.leave_out(windows)
    skipped = SkippedStep(step=finished + 1, windows=windows, why=error.why)
    setup.skipped.append(skipped)
    return skipped


def _spec(setup: Setup) -> Instability:
    assert isinstance(setup.run, PretrainRunFile)
    return setup.run.spec.training.instability or Instability()
