"""`kindling inspect RUN --step N`: the documents that a step of a pretraining read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text
from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.products import MANIFEST, DatasetManifest, ModelManifest, SkippedStep
from kindling_api.v1alpha1.training import BatchPlan, PretrainingSpec, batch_plan, default_sequences, steps_of
from kindling_api.v1alpha1.windows import WindowRange, merged
from kindling_cli.listing import listing, print_listing
from kindling_cli.product_folders import ProductFolder, find
from kindling_cli.products import Dataset, dataset_of, read_product
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest
from kindling_storage.origin import read_origin
from kindling_trainer.data.documents import Passage, passages
from kindling_trainer.data.order import Numbers, WindowOrder
from kindling_trainer.telemetry.metrics import METRICS, rows_of

EXCERPT_TOKENS = 64


@dataclass(frozen=True)
class Run:
    """What a pretraining read, and in which order."""

    dataset: Dataset
    training: PretrainingSpec
    context: int
    skipped: tuple[SkippedStep, ...] = ()
    """Steps that were not taken with what they would have read."""

    @property
    def plan(self) -> BatchPlan:
        """A step, as one process would take it."""
        sequences = default_sequences(self.training, self.context, self.dataset.manifest.train_tokens)
        return batch_plan(self.training.batch, self.context, Layout(), sequences=sequences)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return steps_of(self.training, self.plan, self.dataset.manifest.train_tokens)

    def passages(self, step: int) -> list[Passage]:
        """What lies in the windows that a step read, the longest first."""
        left_out = [window for each in self.skipped for window in each.windows]
        order, sequences = self._order([*self.training.skip, *left_out]), self.plan.sequences
        return self._passages(order.starts((step - 1) * sequences, sequences))

    def left_out(self, step: int) -> list[Passage]:
        """What lies in the windows that a step was to read, and that were left out instead; the longest first."""
        windows = [window for each in self.skipped if each.step == step for window in each.windows]
        starts = [self._order([]).starts(window.first, window.count) for window in windows]
        return self._passages(np.concatenate(starts)) if starts else []

    def _order(self, skips: list[WindowRange]) -> WindowOrder:
        return WindowOrder(self.dataset.manifest.train_tokens, self.context, self.training.seed, merged(skips))

    def _passages(self, starts: Numbers) -> list[Passage]:
        found = passages(self.dataset.store, self.dataset.manifest.train, starts, self.context + 1)
        return sorted({one for window in found for one in window}, key=lambda one: -one.tokens)


def show_step(what: str, step: int, *, store: str, limit: int, as_json: bool) -> None:
    """Print the documents of a step, those with most tokens first.

    Raises:
        SpecError: there is no such pretraining or step, or its dataset has gone.
    """
    run = _run(find(what, store, ("PretrainRun",)), what)
    if not 1 <= step <= run.steps:
        allowed = f"1 to {run.steps:,}, the steps of the run"
        raise SpecError(explain("--step", found=step, allowed=allowed, remedy="use a number in this range"))
    left_out = _rows(run, run.left_out(step), left_out=True)
    rows = left_out + _rows(run, run.passages(step))
    if as_json:
        print(json.dumps(rows[:limit], indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False)
    columns = ["document", "source", "offset", "tokens", "text", *(["left out"] if left_out else [])]
    table = listing(console, *columns)
    for row in rows[:limit]:
        name = row["id"] or f"{row['shard']} document {row['document']}"
        marked = ["left out" if "leftOut" in row else ""] if left_out else []
        text = Text(row["text"], "dim")
        table.add_row(name, row["source"] or "", f"{row['offset']:,}", f"{row['tokens']:,}", text, *marked)
    print_listing(console, table)
    for each in run.skipped:
        if each.step == step:
            console.print(f"Left out is {each.sentence}.")
    console.print(f"{min(limit, len(rows)):,} of {len(rows):,} passages of step {step:,}; offsets are in tokens.")


def _run(place: ProductFolder, what: str) -> Run:
    spec, dataset = _content(place.store)
    if spec is None or dataset is None:
        found = "no dataset any more" if spec is not None else "no pretraining"
        allowed, remedy = "a PretrainRun and its dataset", "name a run, or the folder of one that failed"
        raise SpecError(explain(repr(what), found=found, allowed=allowed, remedy=remedy))
    training = PretrainingSpec.model_validate(spec["training"], strict=False)
    return Run(dataset, training, int(spec["model"]["context"]), _skipped(place.store))


def _skipped(store: ObjectStore) -> tuple[SkippedStep, ...]:
    """The steps that were not taken with what they would have read; of a run that is not finished, by its curves."""
    if store.exists(MANIFEST):
        manifest = read_product(store)
        return (manifest.skipped or ()) if isinstance(manifest, ModelManifest) else ()
    rows = rows_of(store.get(METRICS).decode()) if store.exists(METRICS) else ()
    return tuple(
        SkippedStep.model_validate(
            {
                "step": row["step"], "windows": row["skipped"], "why": row["why"],
                "rolledBackTo": row.get("rolled_back_to"),
            },
            strict=False,
        )
        for row in rows
        if "skipped" in row
    )  # fmt: skip


def _content(store: ObjectStore) -> tuple[dict[str, Any] | None, Dataset | None]:
    """The content of the run's spec, and its dataset; of one that is not finished from what it left."""
    if store.exists(MANIFEST):
        manifest = read_product(store)
        if not isinstance(manifest, ModelManifest) or "model" not in manifest.spec:
            return None, None
        return manifest.spec, dataset_of(store, manifest)
    origin = read_origin(store)
    if origin is None or origin.spec is None:
        return None, None
    dataset = open_store(origin.reads[0].uri)
    found = read_manifest(dataset, DatasetManifest)
    return origin.spec, None if found is None else Dataset(dataset, found)


def _rows(run: Run, found: list[Passage], *, left_out: bool = False) -> list[dict[str, Any]]:
    dataset = run.dataset
    tokenizer = Tokenizer.from_str(dataset.store.get(dataset.manifest.tokenizer.path).decode())
    names = _names(dataset)
    rows = []
    for passage in found:
        id, source = names(passage)
        text = tokenizer.decode(_tokens(dataset, passage))
        rows.append(
            {
                "id": id, "source": source, "shard": passage.shard, "document": passage.document,
                "offset": passage.offset, "tokens": passage.tokens, "text": " ".join(text.split()),
                **({"leftOut": True} if left_out else {}),
            }
        )  # fmt: skip
    return rows


def _tokens(dataset: Dataset, passage: Passage) -> list[int]:
    from kindling_dataprep.output.shards import read_index  # not above: help needs none of data preparation

    index = read_index(dataset.store.get(f"{passage.shard}.idx"))
    size = np.dtype(index.dtype).itemsize
    first = int(index.pointers[passage.document]) + passage.offset * size
    data = dataset.store.get_range(f"{passage.shard}.bin", first, min(passage.tokens, EXCERPT_TOKENS) * size)
    return [int(token) for token in np.frombuffer(data, index.dtype)]


def _names(dataset: Dataset) -> Callable[[Passage], tuple[str | None, str | None]]:
    """From a passage to the id and the source of its document, of datasets whose ledger tells them."""
    from kindling_dataprep.output.ledger import read_kept
    from kindling_dataprep.output.order import cut_into_shards
    from kindling_dataprep.stages.write import arrange

    if not dataset.manifest.spec:
        return lambda passage: (None, None)
    spec = DatasetBuildSpec.model_validate(dataset.manifest.spec, strict=False)
    kept = read_kept(dataset.store, ["id", "source", "digest", "tokens"])
    train, _ = arrange(spec, kept)
    shards = cut_into_shards(train, spec.shards.tokens_per_shard)
    by_name = {shard.path: pieces for shard, pieces in zip(dataset.manifest.train, shards, strict=True)}

    def name(passage: Passage) -> tuple[str | None, str | None]:
        row = int(by_name[passage.shard].document[passage.document])
        return kept["id"][row].as_py(), spec.sources[kept["source"][row].as_py()].uri

    return name
