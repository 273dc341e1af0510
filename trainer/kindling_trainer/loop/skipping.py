"""What a run leaves out when a step may not be taken, and what it remembers for that."""

from __future__ import annotations

from kindling_api.errors import UserError
from kindling_api.v1alpha1.products import SkippedStep
from kindling_api.v1alpha1.runfile import PretrainRunFile
from kindling_api.v1alpha1.training import Instability
from kindling_api.v1alpha1.windows import merged
from kindling_trainer.loop.instability import Spikes, UnstableError
from kindling_trainer.loop.pretrain import Pretraining
from kindling_trainer.loop.restore import go_back
from kindling_trainer.loop.setup import Setup


def leave_out_again(setup: Setup) -> None:
    """What was left out before the checkpoint that the run goes on from, stays so."""
    if isinstance(setup.objective, Pretraining):
        setup.objective.leave_out(window for step in setup.skipped for window in step.windows)


def watched(setup: Setup) -> Spikes | None:
    """The steps with which others are compared, unless the run asks for none."""
    if not isinstance(setup.objective, Pretraining):
        return None
    spec = _spec(setup)
    if spec.spike == 0:
        return None
    warm_up = round(setup.run.spec.training.schedule.warmup_fraction * setup.steps)
    spikes = Spikes(spec, warm_up=warm_up, recent=setup.recent)
    spikes.are_taken = _is_spent(setup)
    return spikes


def heal(setup: Setup, finished: int, error: UnstableError, spikes: Spikes | None) -> SkippedStep:
    """Leave out what the step after `finished` ones was to read, so that it comes again with what follows. Where that
    was in vain before, go back to a checkpoint, if there is one; none may be on its way.

    Raises:
        UserError: as much as may be was left out before, or the run is no pretraining, whose data has an order that can
            go on elsewhere.
    """
    skipped = (_roll_back(setup, finished, error, spikes) if is_in_vain(setup, finished) else None) or _leave_out(
        setup, finished, error
    )
    if spikes is not None:
        spikes.are_taken = _is_spent(setup)
    return skipped


def is_in_vain(setup: Setup, finished: int) -> bool:
    """Whether what the step after `finished` ones was to read has been left out before.

    Other windows spike as well, so it is hardly they that are at fault, but the weights.
    """
    newest = setup.skipped[-1] if setup.skipped else None
    return newest is not None and newest.step == finished + 1 and newest.rolled_back_to is None


def _roll_back(setup: Setup, finished: int, error: UnstableError, spikes: Spikes | None) -> SkippedStep | None:
    """Go back to before the newest steps, and leave out what they read; with what was left out in vain, as in PaLM
    (Chowdhery et al. 2022, arXiv:2204.02311, section 5.1), where batches before and during a spike are left out."""
    spec, objective = _spec(setup), setup.objective
    assert isinstance(objective, Pretraining)
    before = finished - spec.skip
    found = go_back(setup, before) if spec.rollback == "auto" and before > 0 else None
    if found is None:
        return None
    folder, manifest = found
    setup.best.found = manifest.best
    in_vain = setup.skipped.pop()
    windows = merged(window for step in range(before, finished + 1) for window in objective.windows(step))
    objective.leave_out(windows)
    if spikes is not None:
        spikes.go_back(manifest.recent or ())
    skipped = SkippedStep(
        step=before + 1,
        windows=merged([*windows, *in_vain.windows]),
        why=f"step {finished + 1} with other windows, too: {error.why}",
        rolled_back_to=folder.step,
    )
    setup.skipped.append(skipped)
    return skipped


def _leave_out(setup: Setup, finished: int, error: UnstableError) -> SkippedStep:
    objective = setup.objective
    if not isinstance(objective, Pretraining):
        raise error
    if _is_spent(setup):
        if not setup.skipped:
            raise error
        before = ", ".join(str(each.step) for each in setup.skipped)
        raise UserError(
            f"{error} What was to be read in steps {before} was left out before; `kindling inspect RUN --step N` names "
            "the documents."
        ) from error
    windows = objective.windows(finished)
    objective.leave_out(windows)
    skipped = SkippedStep(step=finished + 1, windows=windows, why=error.why)
    setup.skipped.append(skipped)
    return skipped


def _is_spent(setup: Setup) -> bool:
    return len(setup.skipped) >= _spec(setup).at_most


def _spec(setup: Setup) -> Instability:
    assert isinstance(setup.run, PretrainRunFile)
    return setup.run.spec.training.instability or Instability()
