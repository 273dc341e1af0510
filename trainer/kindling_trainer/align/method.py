"""From `spec.method` to the objective that does it."""

from __future__ import annotations

from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_trainer.loop.setup import Setup
from kindling_trainer.parallel.mesh import Ranks


def prepare(run: AlignmentRunFile, ranks: Ranks) -> Setup:
    """The parts of an alignment run, whatever its method.

    Raises:
        UserError: base, template, data or method are wrong.
    """
    method = run.spec.method
    if method.sft is not None:
        from kindling_trainer.align import sft  # each method needs modules of its own

        return sft.prepare(run, ranks, method.sft)
    if method.dpo is not None:
        from kindling_trainer.align.preference import dpo

        return dpo.prepare(run, ranks, method.dpo)
    if method.reward is not None:
        from kindling_trainer.align.preference import reward_modeling

        return reward_modeling.prepare(run, ranks, method.reward)
    if method.grpo is not None:
        from kindling_trainer.align.rl import grpo

        return grpo.prepare(run, ranks, method.grpo)
    from kindling_trainer.align.rl import ppo

    assert method.ppo is not None, "exactly one method is given"
    return ppo.prepare(run, ranks, method.ppo)
