"""Writes checkpoints, in the background if wanted; one counts from the moment its manifest is there."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint.state_dict_saver as dcp
from torch import Tensor

from kindling_api.base import canonical_json
from kindling_api.v1alpha1.products import CheckpointManifest, FileEntry
from kindling_api.v1alpha1.status import CheckpointStatus
from kindling_storage import ObjectStore
from kindling_storage.commit import commit, put_file
from kindling_trainer.checkpoint.folders import Folder, checkpoint_store, prune
from kindling_trainer.checkpoint.part_stream import PartStream
from kindling_trainer.checkpoint.parts import METADATA, StagingWriter


class Saver:
    """Saves the states of one run; at most one checkpoint is being written at any time.

    All processes of `group` (None: there is one) call the same methods in the same order.
    """

    def __init__(
        self, run: ObjectStore, facts: CheckpointManifest, *, keep: int, group: dist.ProcessGroup | None,
        committing: Callable[[], None], committed: Callable[[CheckpointStatus], None],
    ) -> None:  # fmt: skip
        """All of this is of the run; the first process alone makes use of the last two, in the background.

        Args:
            facts: what all checkpoints share; step, tokens and files are filled in.
            keep: how many checkpoints stay.
            committing: is called before each commit, which what it raises prevents.
            committed: is called with each checkpoint that is committed.
        """
        self._run, self._facts, self._keep, self._group = run, facts, keep, group
        self._committing, self._committed = committing, committed
        self._rank = dist.get_rank(group) if group is not None else 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._copies: dict[str, Tensor] = {}

    def save(self, state: dict[str, Tensor], *, step: int, tokens: int, **more: Any) -> None:
        """Copy the state to the host's memory, and write it in the background; `more` are fields of its manifest.

        Raises:
            KindlingError: the checkpoint before could not be written.
        """
        self.wait()
        began = time.monotonic()
        writer = StagingWriter(self._rank, self._copies)
        dcp.save(state, storage_writer=writer, process_group=self._group, no_dist=self._group is None)
        manifest = self._facts.model_copy(update={"step": step, "tokens": tokens, **more})
        self._writing = self._thread.submit(self._write, writer, manifest, began)

    def wait(self) -> None:
        """Until what was saved is committed.

        Raises:
            KindlingError: it could not be written; older checkpoints are as they were.
        """
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def release(self) -> None:
        """Give back the memory in which the state is copied; nothing is being written.

        The next save would have to be given it anew.
        """
        assert not self.is_writing
        self._copies.clear()

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self._writing is not None and not self._writing.done()

    def raise_if_failed(self) -> None:
        """Like `wait`, but without waiting."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def _write(self, writer: StagingWriter, manifest: CheckpointManifest, began: float) -> None:
        store = checkpoint_store(self._run, Folder(manifest.step, manifest.attempt))
        entry = put_file(store, writer.part, io.BufferedReader(PartStream(writer.tensors)))
        entries = self._gather(entry)
        if writer.metadata is None:
            return
        entries.append(put_file(store, METADATA, canonical_json(writer.metadata)))
        manifest = manifest.model_copy(update={"files": sorted(entries, key=lambda entry: entry.path)})
        self._committing()
        digest, now = commit(store, manifest), datetime.now(UTC).isoformat(timespec="seconds")
        seconds = round(time.monotonic() - began, 1)
        self._committed(CheckpointStatus(step=manifest.step, uri=store.uri, digest=digest, time=now, seconds=seconds))
        prune(self._run, self._keep, bests=manifest.best is not None)

    def _gather(self, entry: FileEntry) -> list[FileEntry]:
        if self._group is None:
            return [entry]
        entries: list[FileEntry | None] = [None] * dist.get_world_size(self._group)
        dist.all_gather_object(entries, entry, group=self._group)
        return [each for each in entries if each is not None]
