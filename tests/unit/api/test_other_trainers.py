"""Fields that other trainers have, each answered with its place here."""

import re
from typing import Any

import pytest

from kindling_api import other_trainers
from kindling_api.documents import KINDS, parse
from kindling_api.errors import SpecError
from kindling_api.schema import at, structural_schema

ADAMW, COSINE = "spec.training.optimizer.adamW", "spec.training.schedule.cosine"


def refusal(where: str, field: str, value: Any = 1) -> str:
    """The remedy for a field of a PretrainRun."""
    training: dict[str, Any] = {"steps": 10}
    spec: dict[str, Any] = {"dataset": {"name": "web"}, "model": {"preset": "llama-tiny"}, "training": training}
    (training if where == "training" else spec["model"] if where == "model" else spec)[field] = value
    header = {"apiVersion": "kindling.dev/v1alpha1", "kind": "PretrainRun", "metadata": {"name": "x"}}
    with pytest.raises(SpecError) as error:
        parse({**header, "spec": spec})
    return str(error.value).partition("To fix it: ")[2].rstrip(".")


@pytest.mark.parametrize(
    ("where", "field", "remedy"),
    [
        ("training", "learningRate", f"write {ADAMW}.learningRate"),
        ("training", "learning_rate", f"write {ADAMW}.learningRate"),
        ("training", "lr", f"write {ADAMW}.learningRate"),
        ("spec", "learningRate", f"write {ADAMW}.learningRate"),
        ("training", "weightDecay", f"write {ADAMW}.weightDecay"),
        ("training", "warmup_steps", f"write {COSINE}.warmupFraction, a fraction of the steps"),
        ("training", "minLr", f"write {COSINE}.finalFraction, a fraction of the peak"),
        ("training", "batchSize", "write spec.training.batch.tokens, which counts tokens and not sequences"),
        ("training", "per_device_train_batch_size", "write spec.training.batch.microBatch"),
        ("training", "train_iters", "write spec.training.steps"),
        ("training", "num_train_epochs", "write spec.training.epochs"),
        ("training", "maxGradNorm", "write spec.training.gradientClip"),
        ("training", "gradientCheckpointing", "write spec.training.activationCheckpointing"),
        ("training", "bf16", "write spec.training.precision"),
        ("training", "save_steps", "write spec.checkpoint.every"),
        ("training", "evalSteps", "write spec.evaluation.every"),
        ("training", "max_seq_length", "write spec.model.context"),
        ("model", "n_layer", "did you mean `layers`? If not, remove it"),
        ("model", "n_embd", "write spec.model.width"),
        ("model", "hiddenSize", "write spec.model.width"),
        ("spec", "seed", "write spec.training.seed"),
        (
            "training",
            "gradient_accumulation_steps",
            "remove it; it follows from spec.training.batch.tokens and batch.mi",
        ),
        (
            "training",
            "lora",
            "remove it; every weight of a pretraining is trained; adapters are spec.adapter",
        ),
        ("training", "qlora", "remove it; weights are not quantised"),
    ],
)
def test_a_field_of_another_trainer_is_shown_its_place(where: str, field: str, remedy: str) -> None:
    assert refusal(where, field).startswith(remedy)


def test_every_place_is_a_field_of_a_training_run() -> None:
    schemas = [structural_schema(KINDS[kind]) for kind in ("PretrainRun", "AlignmentRun")]
    places = re.findall(r"write (spec[\w.]+)", " ".join(map(str, told())))
    assert places
    for place in places:
        assert any(at(schema, place.split(".")) is not None for schema in schemas), place


def told() -> list[str | None]:
    return [other_trainers.remedy_for(name, None, lambda place: True) for name in other_trainers._PLACES]


def test_a_build_is_not_sent_to_a_field_that_it_has_not() -> None:
    header = {"apiVersion": "kindling.dev/v1alpha1", "kind": "DatasetBuild", "metadata": {"name": "x"}}
    with pytest.raises(SpecError, match="To fix it: remove it"):
        parse({**header, "spec": {"sources": [{"uri": "a"}], "learningRate": 1}})


@pytest.mark.parametrize(
    ("value", "words"), [(False, "no, off and false as false"), (True, "yes, on and true as true")]
)
def test_a_word_that_yaml_reads_as_a_truth_value_is_told_so(value: bool, words: str) -> None:
    header = {"apiVersion": "kindling.dev/v1alpha1", "kind": "DatasetBuild", "metadata": {"name": value}}
    with pytest.raises(SpecError, match=f"put the word in quotes; without them YAML reads {words}"):
        parse({**header, "spec": {"sources": [{"uri": "a"}]}})
