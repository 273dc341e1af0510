import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec, FineTuningSpec
from kindling_api.v1alpha1.model import PRESETS
from kindling_api.v1alpha1.parallelism import Layout, ParallelismSpec, check_divides, layout_of
from kindling_api.v1alpha1.training import (
    Batch,
    BatchPlan,
    TrainingSpec,
    batch_plan,
    default_sequences,
    epochs_of,
    numbers_of_step,
    steps_of,
    steps_over,
)

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
            "spec.training.batch.tokens: found 1000; allowed: a multiple of the context, 128. To fix it: use 1024.",
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
    assert steps_of(TrainingSpec.model_validate(length), plan, data_tokens=2 * plan.tokens) == steps


@pytest.mark.parametrize(
    ("length", "data_tokens", "sequences"),
    [
        ({"epochs": 1.0}, 128 * 32 * 100, 32),
        ({"epochs": 1.0}, 128 * 32 * 99, 16),
        ({"epochs": 1.0}, 128 * 400, 4),
        ({"epochs": 1.0}, 1, 1),
        ({"epochs": 4.0}, 128 * 400, 16),
        ({"tokens": 128 * 800}, 1, 8),
        ({"steps": 5}, 1, 32),
        ({"epochs": 1.0}, None, 32),
    ],
    ids=["enough", "a little less", "small", "tiny", "more passes", "tokens", "steps are steps", "not known yet"],
)
def test_a_batch_that_is_left_open_shrinks_until_there_are_100_steps(
    length: dict[str, float], data_tokens: int | None, sequences: int
) -> None:
    assert default_sequences(TrainingSpec.model_validate(length), 128, data_tokens) == sequences


@pytest.mark.parametrize(
    ("batch", "layout", "sequences", "micro_batch", "accumulation"),
    [
        (Batch(), Layout(), 4, 4, 1),
        (Batch(), Layout(data=2), 4, 2, 1),
        (Batch(), Layout(data=8), 4, 1, 1),
        (Batch(micro_batch=8), Layout(data=2), 4, 2, 1),
        (Batch(micro_batch=1), Layout(), 4, 1, 4),
        (Batch(tokens=128 * 16), Layout(), 4, 16, 1),
    ],
    ids=[
        "alone",
        "two",
        "more processes than sequences",
        "a larger micro-batch",
        "a smaller one",
        "what is said stays",
    ],
)
def test_a_batch_that_shrinks_is_the_same_on_every_layout(
    batch: Batch, layout: Layout, sequences: int, micro_batch: int, accumulation: int
) -> None:
    plan = batch_plan(batch, 128, layout, sequences=sequences)
    said = batch.tokens // 128 if batch.tokens else sequences
    expected = BatchPlan(context=128, sequences=said, micro_batch=micro_batch, accumulation=accumulation)
    assert plan == expected


@pytest.mark.parametrize(
    ("training", "data_tokens", "epochs", "steps"),
    [
        ({}, 128 * 4, 25, 100),
        ({}, 128 * 3, 25, 75),
        ({}, 128 * 30, 4, 120),
        ({}, 128 * 5000, 1, 5000),
        ({"epochs": 2.0}, 128 * 4, 2.0, 8),
        ({"steps": 7}, 128 * 14, 0.5, 7),
    ],
    ids=["few dialogues", "fewer", "some", "many", "what is said stays", "steps as passes"],
)
def test_an_alignment_whose_length_is_left_open_passes_over_few_dialogues_again(
    training: dict[str, float], data_tokens: int, epochs: float, steps: int
) -> None:
    plan, recipe = batch_plan(Batch(tokens=128), 128, Layout()), FineTuningSpec.model_validate(training)
    assert (epochs_of(recipe, plan, data_tokens), steps_of(recipe, plan, data_tokens)) == (epochs, steps)


@pytest.mark.parametrize("epochs", [0.5, 1, 1.1, 3, None])
@pytest.mark.parametrize("sequences", [1, 31, 32, 33, 63, 64, 100])
def test_an_epoch_of_sequences_has_each_of_them_once_and_what_is_left_is_a_batch(
    sequences: int, epochs: float | None
) -> None:
    plan, recipe = batch_plan(Batch(), 128, Layout()), FineTuningSpec(epochs=epochs)
    steps = steps_over(recipe, plan, sequences)
    read = [number for step in range(steps) for number in numbers_of_step(recipe, plan, sequences, step)]
    passes = epochs or epochs_of(recipe, plan, sequences * 128)
    assert read == list(range(max(1, -(-round(passes * 10) * sequences // 10))))
    assert all(len(numbers_of_step(recipe, plan, sequences, step)) == 32 for step in range(steps - 1))


def test_other_lengths_are_of_whole_batches() -> None:
    plan = batch_plan(Batch(), 128, Layout())
    for recipe, steps in ((TrainingSpec(steps=3), 3), (TrainingSpec(tokens=3 * plan.tokens + 1), 3)):
        assert steps_over(recipe, plan, 5) == steps
        assert [len(numbers_of_step(recipe, plan, 5, step)) for step in range(3)] == [32, 32, 32]


def test_epochs_take_all_steps_that_belong_together() -> None:
    plan = batch_plan(Batch(), 128, Layout())
    assert [steps_over(FineTuningSpec(epochs=1), plan, size, round_steps=3) for size in (96, 97, 192)] == [3, 6, 6]


@pytest.mark.parametrize(
    ("context", "parallelism", "refusal"),
    [
        (None, {}, None),
        (48, {}, None),
        (48, {"tensor": 2}, None),
        (128, {}, "spec.training.context: found 128; allowed: at most the model's own context, 64"),
        (13, {"context": 2}, "spec.training.context: found 13; allowed: a multiple of 4, so that the processes can"),
    ],
)
def test_an_alignment_has_a_context_of_its_own_at_most_the_models(
    context: int | None, parallelism: dict[str, int], refusal: str | None
) -> None:
    resources = {"processesPerNode": 2} if parallelism else {}
    said = {"base": {"uri": "b"}, "method": {"sft": {}}, "data": [{"uri": "d"}], "training": {"context": context}}
    spec = AlignmentRunSpec.model_validate(said | {"parallelism": parallelism, "resources": resources}, strict=False)
    if refusal is None:
        assert spec.batch_plan(64).context == (context or 64)
        return
    with pytest.raises(SpecError) as refused:
        spec.batch_plan(64)
    assert str(refused.value).startswith(refusal)
