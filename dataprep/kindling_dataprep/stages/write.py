"""The last stage: documents in their final order, as shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import xxhash

from kindling_api.errors import DataError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.products import Shard, TokenType
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output import order, work
from kindling_dataprep.output.order import Integers, Pieces
from kindling_dataprep.output.shards import Tokens, write_shard
from kindling_dataprep.stages.encode import tokens_path

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class ShardTask:
    """One shard, as pieces of the files of tokens that the encoding tasks wrote: parallel arrays."""

    job: Job
    split: Split
    index: int
    dtype: TokenType
    part: Integers
    """Number of the file."""
    start: Integers
    """First token within the file."""
    length: Integers
    """In tokens."""


def shard_tasks(job: Job, kept: pa.Table, parts: Integers, dtype: TokenType) -> list[ShardTask]:
    """The shards of a build: which documents go where, and in which order.

    Args:
        job: The build.
        kept: The documents that stay, in the order of the sources (see `ledger.KEPT_SCHEMA`).
        parts: [parts] How many of them each encoding task wrote.
        dtype: Type of the tokens.

    Raises:
        DataError: nothing is left to train on.
    """
    lengths = kept["tokens"].to_numpy()
    part = np.repeat(np.arange(len(parts)), parts)
    ends = np.cumsum(lengths)
    before_part = np.concatenate([[0], ends])[np.cumsum(parts) - parts]
    start = ends - lengths - before_part[part]
    train, validation = arrange(job.spec, kept)
    if not len(train):
        remedy = "give more text, a smaller validation part, or larger source weights"
        found, allowed = f"no document to train on out of {len(kept)}", "at least one"
        raise DataError(explain("spec.validation", found=found, allowed=allowed, remedy=remedy))
    splits: list[tuple[Split, Pieces]] = [("train", train), ("validation", validation)]
    return [
        ShardTask(job, split, index, dtype, part[cut.document], start[cut.document] + cut.start, cut.length)
        for split, pieces in splits
        for index, cut in enumerate(order.cut_into_shards(pieces, job.spec.shards.tokens_per_shard))
    ]


def arrange(spec: DatasetBuildSpec, kept: pa.Table) -> tuple[Pieces, Pieces]:
    """What to train on and what is held out, in order.

    Documents that are held out occur once, whatever their source's weight. With `fraction`, both parts are shuffled;
    with `tail`, both keep the order of the sources, and the document at the cut is divided.
    """
    lengths = kept["tokens"].to_numpy()
    identity = np.array(
        [xxhash.xxh3_64_intdigest(id.encode(), spec.seed) for id in kept["id"].to_pylist()], dtype=np.uint64
    )
    weight = np.array([source.weight for source in spec.sources])[kept["source"].to_numpy()]
    counts = order.copies(identity, weight)
    if spec.validation.tail is not None:
        train, validation = order.split_by_tail(lengths, spec.validation.tail)
        return train.repeated(counts[train.document]), validation
    assert spec.validation.fraction is not None
    content = np.array([int.from_bytes(digest[:8]) for digest in kept["digest"].to_pylist()], dtype=np.uint64)
    held_out = order.split_by_digest(content, spec.validation.fraction)
    training, validating = np.flatnonzero(~held_out), np.flatnonzero(held_out)
    return (
        Pieces.whole(order.shuffled(training, counts[training], identity[training]), lengths),
        Pieces.whole(order.shuffled(validating, np.ones_like(validating), identity[validating]), lengths),
    )


def write(task: ShardTask) -> tuple[tuple[Split, int], work.Part[Shard]]:
    """Writes one shard, unless that was done before."""
    name = f"{task.split}-{task.index:05d}"
    return (task.split, task.index), work.once(task.job.store(), name, Shard, partial(_write, task, name))


def _write(task: ShardTask, name: str, part: work.NewPart) -> Shard:
    tokens, documents = write_shard(part.folder / name, _documents(task, part.folder), task.dtype)
    part.put(f"{name}.bin", part.folder / f"{name}.bin")
    part.put(f"{name}.idx", part.folder / f"{name}.idx")
    return Shard(path=name, tokens=tokens, documents=documents)


def _documents(task: ShardTask, folder: Path) -> Iterator[Tokens]:
    files = {part: _tokens(task, part, folder) for part in np.unique(task.part).tolist()}
    for part, start, length in zip(task.part.tolist(), task.start.tolist(), task.length.tolist(), strict=True):
        yield files[part][start : start + length]


def _tokens(task: ShardTask, part: int, folder: Path) -> Tokens:
    """What encoding task `part` wrote, mapped into memory; fetched first where the store is remote."""
    store, path = task.job.store(), tokens_path(part)
    local = store.local_path(path)
    if local is None:
        local = folder / f"{part:05d}.tokens"
        store.download(path, local)
    return np.memmap(local, dtype=task.dtype, mode="r")
