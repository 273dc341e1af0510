"""The form of a checkpoint: one safetensors part a process, and a JSON document that says what lies where.

PyTorch's distributed checkpoint (DCP) plans who writes which piece of which tensor, and who reads it back on another
layout. Its stock writer and reader keep that knowledge in a pickle, which runs code when it is read; ours in JSON.
"""

from __future__ import annotations

import concurrent.futures
import json
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, ReadItem, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageReader, StorageWriter, WriteResult
from torch.futures import Future

from kindling_api.errors import IntegrityError
from kindling_storage import ObjectStore
from kindling_trainer.checkpoint.part_stream import DTYPE_NAMES, DTYPES, read_header

METADATA = "metadata.json"
FORMAT = 1
IN_FLIGHT = 4
"""Pieces that are read at a time; each is held in memory."""


class StagingWriter(StorageWriter):
    """Takes copies, in the host's memory, of what this process is to write; nothing is written yet.

    After `dcp.save` has returned, `tensors` holds this process's part and, on the first process, `metadata` describes
    all parts. Training may then go on while both are written.
    """

    def __init__(self, rank: int, buffers: dict[str, Tensor]) -> None:
        """`buffers` are the copies of the save before, into whose memory these go: new memory would have to be given,
        page by page, by the kernel while training stands still. From a GPU they are pinned, and so faster."""
        self.part = f"part-{rank:05d}.safetensors"
        self.tensors = buffers
        self.metadata: dict[str, Any] | None = None

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results, copies = [], {}
        for item in plan.items:
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, Tensor), "a checkpoint's state is tensors only"
            name = f"{item.index.fqn}@{','.join(map(str, item.index.offset or ()))}"
            copies[name] = _copied(tensor.detach(), self.tensors.get(name))
            results.append(WriteResult(item.index, tensor.nbytes, storage_data=(self.part, name)))
        if torch.cuda.is_initialized():
            torch.cuda.current_stream().synchronize()
        self.tensors.clear()
        self.tensors.update(copies)
        return _finished(results)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        places = {result.index: result.storage_data for part in results for result in part}
        self.metadata = {
            "format": FORMAT,
            "tensors": {
                name: _describe(name, tensor, places)
                for name, tensor in sorted(metadata.state_dict_metadata.items())
                if isinstance(tensor, TensorStorageMetadata)
            },
        }

    def reset(self, checkpoint_id: object = None) -> None: ...

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        return checkpoint_id is None


class PartsReader(StorageReader):
    """Reads the pieces of a checkpoint, in the folder `store`, that this process needs."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._headers: dict[str, tuple[int, dict[str, Any]]] = {}
        self._places: dict[MetadataIndex, tuple[str, str]] = {}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        document = json.loads(self._store.get(METADATA))
        if document["format"] != FORMAT:
            raise IntegrityError(f"{self._store.uri}: checkpoint format {document['format']}; known is {FORMAT}.")
        tensors: dict[str, TensorStorageMetadata | BytesStorageMetadata] = {}
        for name, tensor in document["tensors"].items():
            chunks = [_chunk(chunk) for chunk in tensor["chunks"]]
            properties = TensorProperties(dtype=DTYPES[tensor["dtype"]])
            tensors[name] = TensorStorageMetadata(properties, torch.Size(tensor["size"]), chunks)
            for chunk, described in zip(chunks, tensor["chunks"], strict=True):
                self._places[MetadataIndex(name, chunk.offsets)] = (described["part"], described["name"])
        return Metadata(state_dict_metadata=tensors)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        items = sorted(plan.items, key=lambda item: self._places[item.storage_index])
        for part in {self._places[item.storage_index][0] for item in items}:
            self._headers[part] = read_header(self._store, part)
        with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="restore") as threads:
            waiting: deque[tuple[ReadItem, concurrent.futures.Future[Tensor]]] = deque()
            for item in items:
                if len(waiting) == IN_FLIGHT:
                    _fill(planner, *waiting.popleft())
                waiting.append((item, threads.submit(self._read, *self._places[item.storage_index])))
            while waiting:
                _fill(planner, *waiting.popleft())
        return _finished(None)

    def _read(self, part: str, name: str) -> Tensor:
        start, header = self._headers[part]
        first, end = header[name]["data_offsets"]
        if first == end:
            return torch.empty(header[name]["shape"], dtype=DTYPES[header[name]["dtype"]])
        content = bytearray(self._store.get_range(part, start + first, end - first))
        return torch.frombuffer(content, dtype=DTYPES[header[name]["dtype"]]).view(header[name]["shape"])

    def reset(self, checkpoint_id: object = None) -> None: ...

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        return checkpoint_id is None


def _copied(tensor: Tensor, buffer: Tensor | None) -> Tensor:
    """A contiguous copy in the host's memory; one from a GPU may still be under way."""
    if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
        buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return buffer.copy_(tensor, non_blocking=True)


def _fill(planner: LoadPlanner, item: ReadItem, reading: concurrent.futures.Future[Tensor]) -> None:
    """Put what is wanted of a stored piece where it is wanted."""
    piece = reading.result()
    for dim, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
        piece = piece.narrow(dim, offset, length)
    target = planner.resolve_tensor(item).detach()
    target.copy_(piece)
    planner.commit_tensor(item, target)


def _describe(name: str, tensor: TensorStorageMetadata, places: dict[MetadataIndex, tuple[str, str]]) -> dict[str, Any]:
    chunks = []
    for chunk in tensor.chunks:
        part, stored_name = places[MetadataIndex(name, chunk.offsets)]
        chunks.append({"offsets": list(chunk.offsets), "sizes": list(chunk.sizes), "part": part, "name": stored_name})
    return {"dtype": DTYPE_NAMES[tensor.properties.dtype], "size": list(tensor.size), "chunks": chunks}


def _chunk(described: dict[str, Any]) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(described["offsets"]), torch.Size(described["sizes"]))


def _finished(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
