import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.model import PRESETS
from kindling_api.v1alpha1.parallelism import Layout, ParallelismSpec, check_divides, layout_of
from kindling_api.v1alpha1.training import Batch, TrainingSpec, batch_plan, steps_of

degrees = st.integers(1, 8)


@given(degrees, degrees, degrees, degrees, degrees)
def test_auto_data_is_what_the_others_leave(tensor: int, pipeline: int, context: int, replicas: int, data: int) -> None:
    spec = ParallelismSpec(tensor=tensor, pipeline=pipeline, context=context, replicas=replicas)
    layout = layout_of(spec, tensor * pipeline * context * replicas * data)
    assert (layout.data, layout.processes) == (data, tensor * pipeline * context * replicas * data)


@given(degrees, degrees, st.integers(1, 64))
def test_a_layout_has_all_processes_or_is_refused(tensor: int, data: int, processes: int) -> None:
    spec = ParallelismSpec(tensor=tensor, data=data)
    if tensor * data == processes:
        assert layout_of(spec, processes).processes == processes
    else:
        with pytest.raises(SpecError, match=f"= {tensor * data}; allowed: .* = {processes}\\."):
            layout_of(spec, processes)


@pytest.mark.parametrize(
    ("sharding", "replicas", "context", "shard", "replicate"),
    [
        ("full", 1, 1, 4, 1),
        ("full", 2, 1, 4, 2),
        ("none", 1, 1, 1, 4),
        ("none", 2, 1, 1, 8),
        ("full", 2, 3, 12, 2),
        ("none", 2, 3, 1, 24),
    ],
)
def test_shards_and_copies_make_up_the_processes_that_read_other_tokens(
    sharding: str, replicas: int, context: int, shard: int, replicate: int
) -> None:
    layout = Layout.model_validate({"data": 4, "replicas": replicas, "sharding": sharding, "context": context})
    assert (layout.shard, layout.replicate) == (shard, replicate)
    assert layout.shard * layout.replicate == layout.batch_ranks * context


@given(degrees, degrees, st.integers(1, 64))
def test_a_context_that_is_accepted_is_a_multiple_of_what_the_layout_cuts(tensor: int, degree: int, size: int) -> None:
    layout = Layout(tensor=tensor, context=degree)
    shape = PRESETS["llama-tiny"].model_copy(
        update={"heads": tensor, "kv_heads": tensor, "ffn_width": tensor, "context": size}
    )
    if size % layout.length_multiple == 0:
        check_divides(layout, shape)
        assert size % (tensor * degree) == 0 and (degree == 1 or size % (2 * degree) == 0)
    else:
        with pytest.raises(SpecError, match=r"a divisor of model\.context"):
            check_divides(layout, shape)


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        (
            Layout(tensor=3),
            "spec.parallelism.tensor: found 3; allowed: a divisor of model.heads = 4. To fix it: use 2, or change"
            " model.heads.",
        ),
        (
            Layout(tensor=4),
            "spec.parallelism.tensor: found 4; allowed: a divisor of model.kvHeads = 2. To fix it: use 2, or change"
            " model.kvHeads.",
        ),
        (
            Layout(context=3),
            "spec.parallelism.context: found 3; allowed: half a divisor of model.context = 128. To fix it: use 2, or"
            " change model.context.",
        ),
        (
            Layout(tensor=2, context=128),
            "spec.parallelism.context: found 128; allowed: half a divisor of model.context = 128. To fix it: use 64, or"
            " change model.context.",
        ),
        (
            Layout(pipeline=5),
            "spec.parallelism.pipeline: found 5; allowed: at most model.layers = 4. To fix it: use fewer stages or more"
            " layers.",
        ),
    ],
    ids=["heads", "key and value heads", "context", "chunks of one", "layers"],
)
def test_a_model_that_cannot_be_cut_is_refused(layout: Layout, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        check_divides(layout, PRESETS["llama-tiny"])
    assert str(refusal.value) == sentence


@given(st.integers(1, 512), st.integers(1, 16), st.integers(8, 256))
def test_a_batch_is_cut_without_remainder(share: int, ranks: int, context: int) -> None:
    plan = batch_plan(Batch(tokens=share * ranks * context), context, Layout(data=ranks))
    assert plan.micro_batch * plan.accumulation * ranks == plan.sequences
    assert plan.tokens == share * ranks * context
    assert plan.micro_batch <= 16


def test_a_batch_that_is_not_given_is_32_sequences() -> None:
    assert batch_plan(Batch(), 128, Layout(data=2)).sequences == 32


@pytest.mark.parametrize(
    ("stages", "sequences", "micro_batch"),
    [(1, 32, 16), (2, 32, 4), (4, 32, 2), (8, 32, 1), (16, 32, 1), (2, 12, 1), (2, 24, 3), (2, 1024, 16)],
)
def test_the_default_micro_batch_leaves_four_for_each_stage(stages: int, sequences: int, micro_batch: int) -> None:
    plan = batch_plan(Batch(tokens=sequences * 128), 128, Layout(pipeline=stages))
    assert (plan.micro_batch, plan.micro_batch * plan.accumulation) == (micro_batch, sequences)


@pytest.mark.parametrize(
    ("batch", "data", "sentence"),
    [
        (
            Batch(tokens=1000),
            1,
            "spec.training.batch.tokens: found 1000; allowed: a multiple of model.context = 128. To fix it: use 1024.",
        ),
        (
            Batch(tokens=128 * 6),
            4,
            "spec.training.batch.tokens: found 768 = 6 sequences of 128; allowed: a number of sequences that"
            " divides by"
            " data × replicas = 4. To fix it: use 1024, or change parallelism.",
        ),
        (
            Batch(tokens=128 * 8, micro_batch=3),
            1,
            "spec.training.batch.microBatch: found 3; allowed: a divisor of the 8 sequences that each process has"
            " in a step."
            " To fix it: use 1, or change batch.tokens.",
        ),
    ],
    ids=["no whole sequences", "not for every rank", "no whole micro-batches"],
)
def test_a_batch_that_cannot_be_cut_is_refused(batch: Batch, data: int, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        batch_plan(batch, 128, Layout(data=data))
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("length", "steps"),
    [({"steps": 7}, 7), ({"tokens": 4096 * 3 + 1}, 3), ({"epochs": 2.0}, 4), ({"tokens": 1}, 1)],
    ids=["steps", "tokens, rounded down", "epochs", "never none"],
)
def test_a_length_is_a_number_of_steps(length: dict[str, float], steps: int) -> None:
    plan = batch_plan(Batch(), 128, Layout())
    assert steps_of(TrainingSpec.model_validate(length), plan, dataset_tokens=2 * plan.tokens) == steps
