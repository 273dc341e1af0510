"""Which layers a stage of a pipeline has, and in which order it computes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_api.v1alpha1.model import PRESETS, ModelShape
from kindling_api.v1alpha1.sizes import parameters
from kindling_trainer.estimate.pipeline_schedule import bubble, one_forward_one_backward, stages_of, starved

LLAMA = PRESETS["llama-1.2b"]
GPT2 = PRESETS["gpt2-124m"]
SMALL = 512
counts = st.integers(1, 8)


@pytest.mark.parametrize(
    ("shape", "vocab_size", "layers"),
    [
        (LLAMA, SMALL, [16]),
        (LLAMA, SMALL, [8, 8]),
        (LLAMA, SMALL, [5, 6, 5]),
        (LLAMA, SMALL, [4, 4, 4, 4]),
        (LLAMA, SMALL, [1] * 16),
        (GPT2, 50_304, [6, 6]),
        (GPT2, 50_304, [1, 5, 5, 1]),
        (GPT2, 50_304, [1] * 12),
    ],
    ids=lambda value: str(value) if isinstance(value, list) else "",
)
def test_the_fullest_stage_has_as_few_parameters_as_possible(
    shape: ModelShape, vocab_size: int, layers: list[int]
) -> None:
    assert [len(stage.layers) for stage in stages_of(shape, vocab_size, len(layers))] == layers


@given(st.sampled_from([LLAMA, GPT2]), st.integers(64, 100_000), st.integers(1, 12))
def test_every_layer_has_its_stage_and_every_parameter_counts(shape: ModelShape, vocab_size: int, count: int) -> None:
    stages = stages_of(shape, vocab_size, count)
    assert [layer for stage in stages for layer in stage.layers] == list(range(shape.layers))
    assert [stage.number for stage in stages if stage.is_first or stage.is_last] == sorted({0, count - 1})
    copies = vocab_size * shape.width if shape.tied_embeddings and count > 1 else 0
    assert sum(stage.parameters for stage in stages) == parameters(shape, vocab_size) + copies


@pytest.mark.parametrize(
    ("stage", "stages", "micro_batches", "order"),
    [
        (0, 1, 3, "F0 B0 F1 B1 F2 B2"),
        (0, 2, 3, "F0 F1 B0 F2 B1 B2"),
        (1, 2, 3, "F0 B0 F1 B1 F2 B2"),
        (0, 3, 4, "F0 F1 F2 B0 F3 B1 B2 B3"),
        (1, 3, 4, "F0 F1 B0 F2 B1 F3 B2 B3"),
        (2, 3, 4, "F0 B0 F1 B1 F2 B2 F3 B3"),
        (0, 4, 2, "F0 F1 B0 B1"),
        (0, 2, 1, "F0 B0"),
    ],
)
def test_one_forward_and_one_backward_pass_in_turn(stage: int, stages: int, micro_batches: int, order: str) -> None:
    turns = one_forward_one_backward(stage, stages, micro_batches)
    assert " ".join(f"{direction[0].upper()}{number}" for direction, number in turns) == order


@given(counts, counts)
def test_no_stage_waits_for_ever(stages: int, micro_batches: int) -> None:
    """Each turn is taken once what it needs has been sent; a transfer begins when the one before it has arrived."""
    left = [list(one_forward_one_backward(stage, stages, micro_batches)) for stage in range(stages)]
    taken: set[tuple[int, str, int]] = set()

    def ready(stage: int, direction: str, number: int) -> bool:
        receiver = stage + 1 if direction == "forward" else stage - 1
        needed = {(stage - 1, "forward", number)} if direction == "forward" and stage > 0 else set()
        if direction == "backward" and stage < stages - 1:
            needed = {(stage + 1, "backward", number)}
        if 0 <= receiver < stages and number > 0:
            needed |= {(receiver, direction, number - 1)}
        return needed <= taken

    while any(left):
        able = [stage for stage, turns in enumerate(left) if turns and ready(stage, *turns[0])]
        assert able
        for stage in able:
            taken.add((stage, *left[stage].pop(0)))


@given(counts, counts)
def test_a_stage_keeps_no_more_than_what_is_behind_it(stages: int, micro_batches: int) -> None:
    for stage in stages_of(LLAMA, SMALL, stages):
        kept = [0]
        for direction, _ in one_forward_one_backward(stage.number, stages, micro_batches):
            kept.append(kept[-1] + (1 if direction == "forward" else -1))
        assert max(kept) == stage.in_flight(micro_batches) and kept[-1] == 0


def test_more_micro_batches_make_a_smaller_bubble() -> None:
    assert bubble(1, 1) == 0 and bubble(4, 4) == 3 / 7
    assert all(more < fewer for fewer, more in pairwise(bubble(4, count) for count in range(1, 9)))


def test_fewer_micro_batches_than_stages_are_told() -> None:
    assert starved(4, 4) is None and starved(1, 1) is None
    said = starved(4, 1)
    assert said is not None and said.startswith("spec.parallelism.pipeline: found 4 stages for 1 micro-batch a step")
    assert "waits 75% of the time" in said
