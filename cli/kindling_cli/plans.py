"""What a document would take, worked out from its specification alone: pure, and without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kindling_api.base import Status
from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.sizes import adapter_parameters, checkpoint_bytes, flops_per_token, parameters
from kindling_api.v1alpha1.storage import ModelReference
from kindling_api.v1alpha1.training import BatchPlan, epochs_of, steps_of, steps_over
from kindling_cli.figures import short_count
from kindling_cli.remarks import Machine, on_epochs, on_instability, on_machine, on_sample, on_steps
from kindling_trainer.estimate.cpu import multiplies_bfloat16
from kindling_trainer.estimate.memory import Memory, Precision, memory, recomputed, whole_models
from kindling_trainer.estimate.pipeline_schedule import bubble

if TYPE_CHECKING:
    from kindling_dataprep.estimate import BuildEstimate
    from kindling_dataprep.first_look import FirstLook
    from kindling_trainer.align.data.check import Findings

BYTE_VOCABULARY = 257
ASSUMED_BYTES_PER_TOKEN = 4.0
"""Of a tokenizer that is not there yet: English prose in a vocabulary of 32,000."""
START_SECONDS, TRIAL_SECONDS = 15.0, 5.0
"""What a training takes beside its steps: from its start to the first and from the last to the model's commit, torch
loaded twice; and what an alignment takes to try the model before and after it. On two cores (`bench/plan`)."""
ASSUMED_VOCABULARY = 256
"""Where only the build will tell (characters, a tokenizer from elsewhere)."""


class DatasetPlan(Status):
    """A build, as its specification says it."""

    title: str
    finished: str | None
    """Digest of what is finished already."""
    sources: list[str]
    files: int
    """That the sources name."""
    bytes: int
    """As stored."""
    formats: dict[str, int]
    """Files of each."""
    remarks: list[str]
    """What is left out, and what cannot be read."""
    filters: list[str]
    deduplicate: list[str]
    tokenizer: str
    """How it is made: train, from, char or byte."""
    vocab_size: int | None
    """None where only the build will tell."""
    tokens: int | None
    """Tokens of the training part; an estimate until it is built, and None where nothing could be looked at."""
    documents: int | None
    """Read, as a sample tells; None where there is nothing to do."""
    kept: int | None
    """Of them, likewise."""
    sampled: float | None
    """The part of the sources that was looked at, from 0 to 1."""
    seconds: float | None
    """How long the build takes here, as the sample tells."""


class NodesPlan(Status):
    """An elastic run over so many nodes."""

    nodes: int
    layout: Layout
    batch: BatchPlan
    memory: int
    """Bytes that one process needs."""


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
    trained: int
    """Numbers that change: all parameters, or those of adapters, which come beside them."""
    layout: Layout
    batch: BatchPlan
    sizes: list[NodesPlan] = []
    """The numbers of nodes over which it can go, where it is elastic."""
    steps: int | None
    """None where it hangs on the size of a dataset that is not built yet."""
    epochs: float | None
    """Passes over what is trained on; None where its size is not known yet."""
    chosen: list[str]
    """What of batch and epochs the document leaves open, so that it is chosen for the size of the data."""
    tokens: int | None
    estimated: bool
    """Whether the size of what is trained on is an estimate."""
    precision: Precision
    bubble: float
    """The part of a step in which the stages of a pipeline wait for one another; 0 where there is one stage."""
    memory: Memory
    """Memory of one process."""
    flops: float | None
    """FLOPs of the whole run, recomputation included."""
    seconds: float | None
    """Start, bubble and end included; None where nobody said how fast the machine is."""
    checkpoint_bytes: int
    remarks: list[str]
    """What is left out of the data and why, what will not be learnt, and what this machine has not."""


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
    """The form of each source's records."""
    records: int
    usable: int
    """Records that can be trained on, those held out included."""
    data_tokens: int | None
    """In their sequences; None where the base, and so its tokenizer, is not there yet."""
    counted_tokens: int | None
    """Tokens that the model is trained to say."""


def plan_dataset(
    title: str,
    spec: DatasetBuildSpec,
    manifest: DatasetManifest | None,
    look: FirstLook,
    estimate: BuildEstimate | None,
) -> DatasetPlan:
    """The plan of a build.

    Args:
        manifest: of the finished dataset, where there is one.
        estimate: of what it would make, where a sample was looked at.
    """
    from kindling_dataprep.steps.minhash import banding  # not above: a plan of runs alone needs no numpy

    removal = ["exact"] if spec.deduplicate.exact else []
    if (near := spec.deduplicate.min_hash) is not None:
        bands, rows = banding(near)
        removal.append(f"minHash {bands} × {rows}, Jaccard ≥ {near.threshold:g}")
    return DatasetPlan(
        title=title,
        finished=manifest.digest if manifest else None,
        sources=[source.uri for source in spec.sources],
        files=len(look.files),
        bytes=look.size,
        formats=look.formats(),
        remarks=look.remarks + ([] if estimate is None else on_sample(estimate.documents, estimate.kept)),
        filters=[rules.chosen[0] for rules in spec.filters],
        deduplicate=removal,
        tokenizer=spec.tokenizer.chosen[0],
        vocab_size=_vocabulary(spec, manifest, estimate),
        tokens=manifest.train_tokens if manifest else estimate.tokens if estimate else None,
        documents=estimate.documents if estimate else None,
        kept=estimate.kept if estimate else None,
        sampled=estimate.sampled if estimate else None,
        seconds=estimate.seconds if estimate else None,
    )


def plan_pretraining(
    title: str,
    spec: PretrainRunSpec,
    *,
    vocab_size: int | None,
    dataset_tokens: int | None,
    estimated: bool = False,
    finished: str | None,
    flops_per_second: float | None,
    machine: Machine,
) -> PretrainPlan:
    """The plan of a training run.

    Args:
        vocab_size: the tokenizer's, where it is known.
        dataset_tokens: of the training part, where it is known, or else estimated.
        estimated: whether they are.
        flops_per_second: of all processes together, where it is known.
    """
    batch = spec.batch_plan(dataset_tokens)
    sizes = _sizes(spec, spec.model.shape(), batch, vocab_size, dataset_tokens, flops_per_second)
    remarks = on_machine(spec.resources, sizes["memory"].total, machine)
    if sizes["steps"] is not None:
        remarks += on_steps(sizes["steps"]) + on_instability(spec.training, sizes["steps"])
    if dataset_tokens:
        remarks += on_epochs(sizes["tokens"], dataset_tokens)
    return PretrainPlan(
        title=title,
        finished=finished,
        sizes=_elastic(spec, vocab_size, dataset_tokens),
        remarks=remarks,
        estimated=estimated and spec.training.steps is None,
        **sizes,
    )


def _elastic(spec: PretrainRunSpec, vocab_size: int | None, dataset_tokens: int | None) -> list[NodesPlan]:
    """What an elastic run takes over each number of nodes that it can go over."""
    if spec.resources.min_nodes is None:
        return []
    shape, found = spec.model.shape(), []
    for nodes in spec.sizes():
        sized = spec.at_size(nodes)
        batch = sized.batch_plan(dataset_tokens)
        layout, needed = sized.layout(), _memory(sized, shape, _padded(shape, vocab_size), batch)
        found.append(NodesPlan(nodes=nodes, layout=layout, batch=batch, memory=int(needed.total)))
    return found


def plan_alignment(
    title: str,
    spec: AlignmentRunSpec,
    *,
    shape: ModelShape,
    vocab_size: int | None,
    judges: Sequence[tuple[ModelShape, int | None]],
    found: Findings,
    bytes_per_token: float,
    finished: str | None,
    flops_per_second: float | None,
    machine: Machine,
) -> AlignmentPlan:
    """The plan of an alignment of a model of `shape`.

    Args:
        vocab_size: the base's, where it is known.
        judges: shape and vocabulary of each reward model that scores answers.
        found: what a dry run over the data says.
        bytes_per_token: of the base's tokenizer, where a dry run has to do without it.
        flops_per_second: of all processes together, where it is known.
    """
    from kindling_trainer.align.data.epoch import epoch_tokens  # not above: numpy takes a while to load

    context = spec.context(shape.context)
    data_tokens = epoch_tokens(spec, context, found, 1.0 if found.tokenized else bytes_per_token)
    batch = spec.batch_plan(context, data_tokens)
    beside = whole_models(
        spec, shape, _padded(shape, vocab_size), [(each, _padded(each, size)) for each, size in judges]
    )
    sizes = _sizes(spec, shape, batch, vocab_size, data_tokens, flops_per_second, beside)
    judge = spec.evaluation.judge
    remarks = [*found.sentences(), *on_machine(spec.resources, sizes["memory"].total, machine)]
    remarks += [*on_steps(sizes["steps"]), *on_epochs(sizes["tokens"], data_tokens)]
    return AlignmentPlan(
        title=title,
        finished=finished,
        method=spec.method.chosen[0],
        base=_named(spec.base),
        judge=None if judge is None else _named(judge),
        data=[each.uri for each in spec.data],
        forms=list(found.forms),
        records=found.records,
        usable=found.kept,
        data_tokens=found.tokens if found.tokenized else None,
        counted_tokens=found.counted if found.tokenized else None,
        remarks=remarks,
        estimated=not found.tokenized,
        **sizes,
    )


def length_of(plan: PretrainPlan) -> str:
    """How long a training is, in words; empty where that is not known yet."""
    if plan.steps is None or plan.tokens is None:
        return ""
    said = f"{'about ' * plan.estimated}{plan.steps:,}, {short_count(plan.tokens)} tokens"
    if plan.epochs is not None:
        said += f", {short_count(plan.epochs) if plan.epochs >= 10 else f'{plan.epochs:.2g}'} epochs"
    chosen = " and ".join(plan.chosen)
    return f"{said} ({chosen} chosen for the size of the data)" if plan.epochs is not None and chosen else said


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
    """What the plans of all kinds of training tell; `beside` is the memory of whole models.

    Raises:
        SpecError: the model's blocks have no layer that an adapter is for.
    """
    lora = spec.lora if isinstance(spec, AlignmentRunSpec) else None
    layout, checkpointing = spec.layout(), spec.training.activation_checkpointing
    vocabulary = _padded(shape, vocab_size)
    precision = _precision(spec)
    steps = _steps(spec, batch, dataset_tokens)
    tokens = steps * batch.tokens if steps is not None else None
    flops = None
    if tokens is not None:
        flops = tokens * flops_per_token(shape, vocabulary, batch.context, lora) * recomputed(checkpointing)
    muon = spec.training.optimizer.muon is not None
    waiting = bubble(layout.pipeline, batch.accumulation)
    work = (flops or 0.0) / (1 - waiting)
    beside_steps = START_SECONDS + (TRIAL_SECONDS if isinstance(spec, AlignmentRunSpec) else 0.0)
    return {
        "shape": shape,
        "vocab_size": vocabulary,
        "vocab_assumed": vocab_size is None,
        "parameters": parameters(shape, vocabulary),
        "trained": parameters(shape, vocabulary) if lora is None else adapter_parameters(shape, lora),
        "layout": layout,
        "batch": batch,
        "steps": steps,
        "epochs": None if dataset_tokens is None else epochs_of(spec.training, batch, dataset_tokens),
        "chosen": _left_open(spec),
        "tokens": tokens,
        "precision": precision,
        "bubble": waiting,
        "memory": _memory(spec, shape, vocabulary, batch, beside),
        "flops": flops,
        "seconds": None if flops is None or not flops_per_second else beside_steps + work / flops_per_second,
        "checkpoint_bytes": checkpoint_bytes(shape, vocabulary, muon=muon, lora=lora),
    }


def _memory(
    spec: PretrainRunSpec | AlignmentRunSpec, shape: ModelShape, vocabulary: int, batch: BatchPlan, beside: float = 0.0
) -> Memory:
    return memory(
        shape,
        vocabulary,
        spec.layout(),
        micro_batch=batch.micro_batch,
        accumulation=batch.accumulation,
        precision=_precision(spec),
        checkpointing=spec.training.activation_checkpointing,
        whole_models=beside,
        context=batch.context,
        masked=isinstance(spec, PretrainRunSpec) and spec.training.document_mask,
        muon=spec.training.optimizer.muon is not None,
        gpu=spec.resources.gpu is not None,
        lora=spec.lora if isinstance(spec, AlignmentRunSpec) else None,
    )


def _steps(spec: PretrainRunSpec | AlignmentRunSpec, batch: BatchPlan, dataset_tokens: int | None) -> int | None:
    if isinstance(spec, AlignmentRunSpec):
        sequences = (dataset_tokens or 0) // batch.context
        return steps_over(spec.training, batch, sequences, round_steps=spec.round_steps(batch))
    known = spec.training.epochs is None or dataset_tokens is not None
    return steps_of(spec.training, batch, dataset_tokens or 0) if known else None


def _left_open(spec: PretrainRunSpec | AlignmentRunSpec) -> list[str]:
    training, method = spec.training, spec.method if isinstance(spec, AlignmentRunSpec) else None
    whole_round = method is not None and (method.ppo or method.grpo)
    batch = training.batch.tokens is None and training.steps is None and not whole_round
    return ["batch"] * batch + ["epochs"] * (not training.given_lengths)


def _padded(shape: ModelShape, vocab_size: int | None) -> int:
    return shape.padded_vocab(vocab_size or ASSUMED_VOCABULARY)


def _vocabulary(spec: DatasetBuildSpec, manifest: DatasetManifest | None, estimate: BuildEstimate | None) -> int | None:
    if manifest is not None:
        return manifest.tokenizer.vocab_size
    if estimate is not None and (estimate.sampled == 1 or spec.tokenizer.train is None):
        return estimate.vocab_size
    if spec.tokenizer.train is not None:
        return spec.tokenizer.train.vocab_size
    return BYTE_VOCABULARY if spec.tokenizer.byte is not None else None


def _precision(spec: PretrainRunSpec | AlignmentRunSpec) -> Precision:
    if spec.training.precision != "auto":
        return spec.training.precision
    return "bf16" if spec.resources.gpu or multiplies_bfloat16() else "fp32"
