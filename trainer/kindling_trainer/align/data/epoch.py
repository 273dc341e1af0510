"""How long an epoch of an alignment is, from what a dry run found: what is learnt, packed as the run packs it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_trainer.align.data.check import Findings
from kindling_trainer.align.data.packing import pack
from kindling_trainer.align.data.sources import split_held_out


def epoch_tokens(spec: AlignmentRunSpec, context: int, found: Findings, bytes_per_token: float = 1.0) -> int:
    """Positions of all sequences of an epoch, padding among them; of what is drawn, one sequence for each answer.

    Args:
        bytes_per_token: by which the lengths found are divided, where they are those of bytes.
    """
    fraction = 0.0 if spec.validation.data else spec.validation.fraction
    numbers, _ = split_held_out(found.kept, fraction, spec.training.seed)
    rewarded = spec.method.ppo or spec.method.grpo
    if rewarded is not None:
        answers = rewarded.answers // rewarded.rollout.prompts
        return len(numbers) * answers * spec.passes * context
    read = [max(1, math.ceil(found.lengths[number] / bytes_per_token) - _unread(spec)) for number in numbers]
    return _windows(spec, context, read) * context


def _unread(spec: AlignmentRunSpec) -> int:
    """Tokens of a record that are only predicted: the last of each sequence, unless a model scores what it has read."""
    if spec.method.reward is not None:
        return 0
    return 2 if spec.method.dpo is not None else 1


def _windows(spec: AlignmentRunSpec, context: int, lengths: Sequence[int]) -> int:
    if spec.method.sft is not None:
        return len(pack([min(length, context) for length in lengths], context))
    return len(pack(lengths, max(context, *lengths)))
