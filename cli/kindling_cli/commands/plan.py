"""`kindling plan`: what `kindling run` would do with these documents. Nothing is started or written."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.text import Text

from kindling_api.references import order
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_cli.figures import byte_size, counted, duration, flops, short_count, short_digest
from kindling_cli.flow import finished_product
from kindling_cli.key_value_table import key_value_table
from kindling_cli.load import load_with_places
from kindling_cli.machine import this_machine
from kindling_cli.planner import Planner
from kindling_cli.plans import AlignmentPlan, DatasetPlan, NodesPlan, PretrainPlan, length_of
from kindling_cli.product_folders import shown, storage_of
from kindling_cli.revisions import pin_revisions
from kindling_trainer.estimate.memory import Memory

NOTHING = "Nothing was started or written."
MATRIX = 512
"""Side of the matrices whose product is timed."""
MATRIX_SECONDS = 0.3
"""For how long: a product takes a few milliseconds, and a hundred where another program has the core."""
CPU_EFFICIENCY = 0.5
"""Part of a matrix product's speed that a training step reaches on a CPU, as a rough guide."""


def plan_files(
    files: Sequence[Path], *, store: str, overrides: Sequence[str], flops_per_second: float | None, as_json: bool
) -> None:
    """Print the plan of the documents.

    Raises:
        SpecError: the documents are wrong.
        StorageError: the store cannot be read.
    """
    storage = storage_of(store)
    speed = _Speed(flops_per_second)
    planner = Planner(storage, speed.of, this_machine(), running=False)
    documents, places = load_with_places(files, overrides)
    with places.named():
        ordered = order(documents, exists=lambda reference: finished_product(storage, reference) is not None)
        plans = [planner.plan(document) for document in pin_revisions(ordered)]
    if as_json:
        print(json.dumps([plan.document() for plan in plans], indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    in_order = " in this order" if len(plans) > 1 else ""
    console.print(Text(f"{counted(len(plans), 'document')}{in_order}, kept in {shown(storage.uri)}", "dim"))
    for plan in plans:
        console.print()
        console.print(_heading(plan))
        console.print(key_value_table(_pairs(plan)))
    console.print()
    console.print(Text(speed.assumption, "dim"))


@cache
def measured_flops() -> float:
    """FLOP/s of an fp32 matrix product on this machine's CPU: the best of some, for others may be at work meanwhile."""
    import numpy as np

    matrix = np.ones((MATRIX, MATRIX), dtype=np.float32)
    began, best = time.perf_counter(), float("inf")
    while time.perf_counter() - began < MATRIX_SECONDS:
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX**3 / best


class _Speed:
    """How fast a run would be, and what that is taken from."""

    def __init__(self, given: float | None) -> None:
        self._given = given
        self.assumption = NOTHING

    def of(self, resources: TrainingResources) -> float | None:
        """FLOP/s of all processes together."""
        if self._given is not None:
            self.assumption = f"Time: at {flops(self._given)} FLOP/s a process, as given. {NOTHING}"
            return self._given * resources.processes
        if resources.gpu is not None:
            return None
        speed = measured_flops()
        self.assumption = (
            f"Time: at {CPU_EFFICIENCY:.0%} of the {speed / 1e9:.0f} GFLOP/s that a matrix product reaches on this"
            f" machine's CPU; give --flops for another one. {NOTHING}"
        )
        return CPU_EFFICIENCY * speed


def _pairs(plan: DatasetPlan | PretrainPlan) -> list[tuple[str, str]]:
    if isinstance(plan, DatasetPlan):
        return _dataset_pairs(plan)
    if not isinstance(plan, AlignmentPlan):
        return _pretrain_pairs(plan)
    judged = f", judged by {shown(plan.judge)}" if plan.judge else ""
    return [
        ("method", f"{plan.method}, from {shown(plan.base)}{judged}"),
        ("data", ", ".join(f"{shown(uri)} ({form})" for uri, form in zip(plan.data, plan.forms, strict=True))),
        ("records", _records(plan)),
        *_pretrain_pairs(plan),
    ]


def _records(plan: AlignmentPlan) -> str:
    records = f"{plan.usable:,} of {plan.records:,} to learn or try"
    if plan.data_tokens:
        records += f", {short_count(plan.data_tokens)} tokens"
    if plan.data_tokens and plan.counted_tokens:
        records += f", of which {plan.counted_tokens / plan.data_tokens:.0%} count"
    return records


def _heading(plan: DatasetPlan | PretrainPlan) -> Text:
    state = f"finished, digest {short_digest(plan.finished)}" if plan.finished else "to do"
    return Text.assemble((plan.title, "bold"), "  ", (state, "green" if plan.finished else "cyan"))


def _dataset_pairs(plan: DatasetPlan) -> list[tuple[str, str]]:
    vocabulary = f"vocabulary {plan.vocab_size:,}" if plan.vocab_size else "vocabulary known once it is built"
    pairs = [
        ("sources", ", ".join(map(shown, plan.sources))),
        *([("files", _files(plan))] if plan.files else []),
        ("filters", ", ".join(plan.filters) or "none"),
        ("duplicates", ", ".join(plan.deduplicate) or "stay"),
        ("tokenizer", f"{plan.tokenizer}, {vocabulary}"),
    ]
    if plan.kept is not None and plan.documents is not None and plan.sampled is not None:
        whole = plan.sampled == 1
        sampled = "" if whole else f", from a sample of {plan.sampled:.1%} of the bytes"
        pairs.append(("documents", f"{'about ' * (not whole)}{plan.documents:,} read, {plan.kept:,} kept{sampled}"))
    if plan.tokens:
        tokens = f"{plan.tokens:,}" if plan.finished else f"about {short_count(plan.tokens)}"
        pairs.append(("tokens", f"{tokens} to train on"))
    if plan.seconds is not None:
        pairs.append(("time", f"about {duration(plan.seconds)}"))
    return [*pairs, *(("remark", remark) for remark in plan.remarks)]


def _files(plan: DatasetPlan) -> str:
    formats = ", ".join(f"{number:,} {name}" for name, number in plan.formats.items())
    return f"{formats}; {byte_size(plan.bytes)}"


def _pretrain_pairs(plan: PretrainPlan) -> list[tuple[str, str]]:
    shape, batch = plan.shape, plan.batch
    heads = f"{shape.heads} heads" + (f" ({shape.kv_heads} for keys)" if shape.kv_heads != shape.heads else "")
    sizes = f"{counted(shape.layers, 'layer')}, width {shape.width}, {heads}, context {shape.context:,}"
    assumed = " (assumed: the build will tell)" if plan.vocab_assumed else ""
    cut = f"{batch.micro_batch} sequences × {batch.accumulation} accumulated × {plan.layout.batch_ranks} ranks"
    trained = "" if plan.trained == plan.parameters else f" that stay, {plan.trained:,} of adapters"
    waiting = f"; stages wait for one another {plan.bubble:.0%} of the time" if plan.bubble else ""
    return [
        ("model", f"{shape.architecture}, {sizes}"),
        ("parameters", f"{plan.parameters:,}{trained}, vocabulary {plan.vocab_size:,}{assumed}"),
        ("layout", f"{_layout(plan.layout)}, {plan.precision}{waiting}"),
        ("batch", f"{batch.tokens:,} tokens = {cut}"),
        *(("elastic", _size(size)) for size in plan.sizes),
        ("steps", length_of(plan) or "known once the dataset is built"),
        ("memory", _memory(plan.memory)),
        ("arithmetic", f"{flops(plan.flops)} FLOPs" if plan.flops else "known once the steps are"),
        ("time", _time(plan)),
        ("checkpoint", byte_size(plan.checkpoint_bytes)),
        *(("remark", remark) for remark in plan.remarks),
    ]


def _size(size: NodesPlan) -> str:
    batch, nodes = size.batch, counted(size.nodes, "node")
    cut = f"{batch.micro_batch} sequences × {batch.accumulation} accumulated × {size.layout.batch_ranks} ranks"
    return f"over {nodes}: {_layout(size.layout)}, {cut}, {byte_size(size.memory)} a process"


def _time(plan: PretrainPlan) -> str:
    if plan.seconds is not None:
        return f"about {duration(plan.seconds)}"
    return "known once the steps are" if plan.flops is None else "give --flops for an estimate"


def _layout(layout: Layout) -> str:
    degrees = [f"{name} {degree}" for name, degree in layout if isinstance(degree, int) and degree > 1]
    return " × ".join(degrees) or "one process"


def _memory(memory: Memory) -> str:
    parts = [f"{name.replace('_', ' ')} {byte_size(size)}" for name, size in memory if size]
    return f"{byte_size(memory.total)} a process: {', '.join(parts)}"
