"""What a document would take, worked out from its specification alone: pure, and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kindling_api.base import Status
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.storage import ModelReference
from kindling_api.v1alpha1.training import BatchPlan, steps_of
from kindling_trainer.align.check import Findings
from kindling_trainer.cpu import multiplies_bfloat16
from kindling_trainer.estimate import Memory, Precision, checkpoint_bytes, memory, recomputed, whole_models
from kindling_trainer.sizes import flops_per_token, parameters
from kindling_trainer.stages import bubble

BYTE_VOCABULARY = 257
ASSUMED_VOCABULARY = 256
"""Where only the build will tell (characters, a tokenizer from elsewhere)."""


class DatasetPlan(Status):
    """A build, as its specification says it."""

    title: str
    finished: str | None
    """Digest of what is finished already."""
    sources: list[str]
    filters: list[str]
    deduplicate: list[str]
    tokenizer: str
    """How it is made: train, from, char or byte."""
    vocab_size: int | None
    """None where only the build will tell."""
    tokens: int | None
    """Of the training part; None until it is built."""


class PretrainPlan(Status):
    """A training run: sizes, batch, memory, arithmetic, time."""

    title: str
    finished: str | None
    """Digest of what is finished already."""
    shape: ModelShape
    vocab_size: int
    """After padding."""
    vocab_assumed: bool
    parameters: int
    layout: Layout
    batch: BatchPlan
    steps: int | None
    """None where it hangs on the size of a dataset that is not built yet."""
    tokens: int | None
    precision: Precision
    bubble: float
    """The part of a step in which the stages of a pipeline wait for one another; 0 where there is one stage."""
    memory: Memory
    """Of one process."""
    flops: float | None
    """Of the whole run, recomputation included."""
    seconds: float | None
    """The bubble included; None where nobody said how fast the machine is."""
    checkpoint_bytes: int


class AlignmentPlan(PretrainPlan):
    """An alignment: what pretraining has, and what it starts and learns from."""

    method: str
    base: str
    """The run or the folder that the model comes from."""
    judge: str | None
    """The run or the folder of the model that compares its answers with the base's."""
    data: list[str]
    """Where the records are."""
    forms: list[str]
    """Of the records of each."""
    records: int
    learnt: int
    """Records from which something can be learnt, those held out included."""
    data_tokens: int | None
    """In their sequences; None where the base, and so its tokenizer, is not there yet."""
    counted_tokens: int | None
    """Those of them that the model is to say."""
    remarks: list[str]
    """What is left out, and why."""


def plan_dataset(title: str, spec: DatasetBuildSpec, manifest: DatasetManifest | None) -> DatasetPlan:
    """The plan of a build; `manifest` is that of the finished dataset, where there is one."""
    removal = ["exact"] if spec.deduplicate.exact else []
    if (near := spec.deduplicate.min_hash) is not None:
        removal.append(f"minHash {near.bands} × {near.rows}, Jaccard ≥ {near.threshold:g}")
    return DatasetPlan(
        title=title,
        finished=manifest.digest if manifest else None,
        sources=[source.uri for source in spec.sources],
        filters=[rules.chosen[0] for rules in spec.filters],
        deduplicate=removal,
        tokenizer=spec.tokenizer.chosen[0],
        vocab_size=manifest.tokenizer.vocab_size if manifest else _vocabulary(spec),
        tokens=manifest.train_tokens if manifest else None,
    )


def plan_pretraining(
    title: str,
    spec: PretrainRunSpec,
    *,
    vocab_size: int | None,
    dataset_tokens: int | None,
    finished: str | None,
    flops_per_second: float | None,
) -> PretrainPlan:
    """The plan of a training run.

    Args:
        vocab_size: the tokenizer's, where it is known.
        dataset_tokens: of the training part, where it is known.
        flops_per_second: of all processes together, where it is known.
    """
    sizes = _sizes(spec, spec.model.shape(), spec.batch_plan(), vocab_size, dataset_tokens, flops_per_second)
    return PretrainPlan(title=title, finished=finished, **sizes)


def plan_alignment(
    title: str,
    spec: AlignmentRunSpec,
    *,
    shape: ModelShape,
    vocab_size: int | None,
    judges: Sequence[tuple[ModelShape, int | None]],
    found: Findings,
    finished: str | None,
    flops_per_second: float | None,
) -> AlignmentPlan:
    """The plan of an alignment of a model of `shape`; how many steps an epoch has is known once its data is packed.

    Args:
        vocab_size: the base's, where it is known.
        judges: shape and vocabulary of each reward model that judges answers.
        found: what a dry run over the data says.
        flops_per_second: of all processes together, where it is known.
    """
    batch = spec.batch_plan(shape.context)
    beside = whole_models(
        spec, shape, _padded(shape, vocab_size), [(each, _padded(each, size)) for each, size in judges]
    )
    sizes = _sizes(spec, shape, batch, vocab_size, None, flops_per_second, beside)
    judge = spec.evaluation.judge
    return AlignmentPlan(
        title=title,
        finished=finished,
        method=spec.method.chosen[0],
        base=_named(spec.base),
        judge=None if judge is None else _named(judge),
        data=[each.uri for each in spec.data],
        forms=list(found.forms),
        records=found.records,
        learnt=found.kept,
        data_tokens=found.tokens if found.tokenized else None,
        counted_tokens=found.counted if found.tokenized else None,
        remarks=found.sentences(),
        **sizes,
    )


def _named(model: ModelReference) -> str:
    return model.uri or f"{model.kind or 'run'} {model.name}"


def _sizes(
    spec: PretrainRunSpec | AlignmentRunSpec,
    shape: ModelShape,
    batch: BatchPlan,
    vocab_size: int | None,
    dataset_tokens: int | None,
    flops_per_second: float | None,
    beside: float = 0.0,
) -> dict[str, Any]:
    """What the plans of all kinds of training tell; `beside` is the memory of whole models."""
    layout, checkpointing = spec.layout(), spec.training.activation_checkpointing
    vocabulary = _padded(shape, vocab_size)
    precision = _precision(spec)
    steps = None
    if spec.training.epochs is None or dataset_tokens is not None:
        steps = steps_of(spec.training, batch, dataset_tokens or 0)
    tokens = steps * batch.tokens if steps is not None else None
    flops = None
    if tokens is not None:
        flops = tokens * flops_per_token(shape, vocabulary, shape.context) * recomputed(checkpointing)
    waiting = bubble(layout.pipeline, batch.accumulation)
    return {
        "shape": shape,
        "vocab_size": vocabulary,
        "vocab_assumed": vocab_size is None,
        "parameters": parameters(shape, vocabulary),
        "layout": layout,
        "batch": batch,
        "steps": steps,
        "tokens": tokens,
        "precision": precision,
        "bubble": waiting,
        "memory": memory(
            shape,
            vocabulary,
            layout,
            micro_batch=batch.micro_batch,
            accumulation=batch.accumulation,
            precision=precision,
            checkpointing=checkpointing,
            whole_models=beside,
        ),
        "flops": flops,
        "seconds": flops / flops_per_second / (1 - waiting) if flops is not None and flops_per_second else None,
        "checkpoint_bytes": checkpoint_bytes(shape, vocabulary),
    }


def _padded(shape: ModelShape, vocab_size: int | None) -> int:
    return shape.padded_vocab(vocab_size or ASSUMED_VOCABULARY)


def _vocabulary(spec: DatasetBuildSpec) -> int | None:
    if spec.tokenizer.train is not None:
        return spec.tokenizer.train.vocab_size
    return BYTE_VOCABULARY if spec.tokenizer.byte is not None else None


def _precision(spec: PretrainRunSpec | AlignmentRunSpec) -> Precision:
    if spec.training.precision != "auto":
        return spec.training.precision
    return "bf16" if spec.resources.gpu or multiplies_bfloat16() else "fp32"
