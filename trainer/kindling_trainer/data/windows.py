"""The token windows that each process reads in each step, and those of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kindling_api.v1alpha1.products import DatasetManifest, Shard
from kindling_api.v1alpha1.training import BatchPlan
from kindling_storage import ObjectStore
from kindling_storage.cache import materialize
from kindling_trainer.data.order import Counted, WindowOrder
from kindling_trainer.data.shards import TokenStream, open_shard
from kindling_trainer.loss import IGNORED

Batch = tuple[Tensor, Tensor]
"""Tokens and targets, each int64 [sequences, T]; a target is the next token."""


@dataclass(frozen=True)
class TrainingWindows:
    """The training part, cut for one process.

    Each step has its windows, whatever the layout: process r of R reads the r-th of R equal parts of them, and, where
    there are fewer windows than processes, one whose targets do not count.
    """

    stream: TokenStream
    order: WindowOrder
    plan: BatchPlan
    rank: int
    """Which part of each batch (`Ranks.batch_rank`)."""

    def micro_batches(self, step: int) -> Iterator[Batch]:
        """This process's part of the step that follows `step` finished ones, a micro-batch at a time."""
        share = self.plan.micro_batch * self.plan.accumulation
        starts = self.order.starts(step * self.plan.sequences + self.rank * share, share)
        for first in range(0, share, self.plan.micro_batch):
            windows = self.stream.windows(starts[first : first + self.plan.micro_batch], self.plan.context + 1)
            tokens = torch.from_numpy(windows)
            targets = tokens[:, 1:].contiguous()
            counts = self.rank * share < self.plan.sequences
            yield tokens[:, :-1].contiguous(), targets if counts else torch.full_like(targets, IGNORED)


@dataclass(frozen=True)
class ValidationWindows:
    """The validation part, cut for one process into windows that do not overlap.

    Each token but the first is a target exactly once. What a short last window lacks, or a process whose share is
    smaller, is filled with targets that do not count, so that all processes compute the same number of batches.
    """

    stream: TokenStream
    context: int
    micro_batch: int
    rank: int
    ranks: int

    def sample(self, batches: int) -> Iterator[Batch]:
        """`batches` micro-batches for each process, spread evenly over the part; fewer where it is smaller."""
        wanted = min(self._windows, batches * self.micro_batch * self.ranks)
        return self._batches(np.linspace(0, self._windows, wanted, endpoint=False).astype(np.int64))

    def all(self, tokens: int) -> Iterator[Batch]:
        """The whole part, or its first `tokens` targets, rounded up to whole windows."""
        return self._batches(np.arange(min(self._windows, -(-tokens // self.context))))

    @property
    def _windows(self) -> int:
        return -(-max(0, len(self.stream) - 1) // self.context)

    def _batches(self, windows: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Iterator[Batch]:
        together = self.micro_batch * self.ranks
        return Counted(self._read(windows, together), -(-len(windows) // together))

    def _read(self, windows: np.ndarray[tuple[int, ...], np.dtype[np.int64]], together: int) -> Iterator[Batch]:
        for first in range(0, len(windows), together):
            mine = windows[first : first + together][self.rank :: self.ranks]
            tokens = torch.zeros(self.micro_batch, self.context, dtype=torch.int64)
            targets = torch.full_like(tokens, IGNORED)
            for row, window in enumerate(mine):
                read = torch.from_numpy(self.stream.read(int(window) * self.context, self.context + 1))
                tokens[row, : len(read) - 1], targets[row, : len(read) - 1] = read[:-1], read[1:]
            yield tokens, targets


def open_stream(dataset: ObjectStore, manifest: DatasetManifest, shards: list[Shard], cache: Path) -> TokenStream:
    """One part of the dataset in the folder `dataset`; a dataset in S3 is first copied to the folder `cache`.

    Raises:
        DataError: a shard does not fit its index.
        IntegrityError: a copied shard differs from its digest in the manifest.
    """
    digests = {entry.path: entry.digest for entry in manifest.files}

    def local(path: str) -> Path:
        return materialize(dataset, path, digests[path], cache)

    return TokenStream([open_shard(local(f"{shard.path}.idx"), local(f"{shard.path}.bin")) for shard in shards])
