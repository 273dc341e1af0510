"""The form of a checkpoint: one safetensors part a process, and a JSON document that says what lies where.

PyTorch's distributed checkpoint (DCP) plans who writes which piece of which tensor, and who reads it back on another
layout. Its stock writer and reader keep that knowledge in a pickle, which runs code when it is read; ours in JSON.
"""

from __future__ import annotations

import json
import struct
from collections import defaultdict
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

METADATA = "metadata.json"
FORMAT = 1
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_DTYPE_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class StagingWriter(StorageWriter):
    """Takes copies, in the host's memory, of what this process is to write; nothing is written yet.

    After `dcp.save` has returned, `tensors` holds this process's part and, on the first process, `metadata` describes
    all parts. Training may then go on while both are written.
    """

    def __init__(self, rank: int) -> None:
        self.part = f"part-{rank:05d}.safetensors"
        self.tensors: dict[str, Tensor] = {}
        self.metadata: dict[str, Any] | None = None

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        results = []
        for item in plan.items:
            tensor = planner.resolve_data(item)
            assert isinstance(tensor, Tensor), "a checkpoint's state is tensors only"
            name = f"{item.index.fqn}@{','.join(map(str, item.index.offset or ()))}"
            self.tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
            results.append(WriteResult(item.index, tensor.nbytes, storage_data=(self.part, name)))
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
            properties = TensorProperties(dtype=_DTYPES[tensor["dtype"]])
            tensors[name] = TensorStorageMetadata(properties, torch.Size(tensor["size"]), chunks)
            for chunk, described in zip(chunks, tensor["chunks"], strict=True):
                self._places[MetadataIndex(name, chunk.offsets)] = (described["part"], described["name"])
        return Metadata(state_dict_metadata=tensors)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        by_part: dict[str, list[tuple[str, ReadItem]]] = defaultdict(list)
        for item in plan.items:
            part, name = self._places[item.storage_index]
            by_part[part].append((name, item))
        for part, wanted in sorted(by_part.items()):
            for name, item in wanted:
                piece = self._read(part, name)
                for dim, (offset, length) in enumerate(zip(item.storage_offsets, item.lengths, strict=True)):
                    piece = piece.narrow(dim, offset, length)
                target = planner.resolve_tensor(item).detach()
                target.copy_(piece)
                planner.commit_tensor(item, target)
        return _finished(None)

    def _read(self, part: str, name: str) -> Tensor:
        if part not in self._headers:
            (length,) = struct.unpack("<Q", self._store.get_range(part, 0, 8))
            self._headers[part] = 8 + length, json.loads(self._store.get_range(part, 8, length))
        start, header = self._headers[part]
        first, end = header[name]["data_offsets"]
        if first == end:
            return torch.empty(header[name]["shape"], dtype=_DTYPES[header[name]["dtype"]])
        content = bytearray(self._store.get_range(part, start + first, end - first))
        return torch.frombuffer(content, dtype=_DTYPES[header[name]["dtype"]]).view(header[name]["shape"])

    def reset(self, checkpoint_id: object = None) -> None: ...

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None: ...

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: object) -> bool:
        return checkpoint_id is None


def _describe(name: str, tensor: TensorStorageMetadata, places: dict[MetadataIndex, tuple[str, str]]) -> dict[str, Any]:
    chunks = []
    for chunk in tensor.chunks:
        part, stored_name = places[MetadataIndex(name, chunk.offsets)]
        chunks.append({"offsets": list(chunk.offsets), "sizes": list(chunk.sizes), "part": part, "name": stored_name})
    return {"dtype": _DTYPE_NAMES[tensor.properties.dtype], "size": list(tensor.size), "chunks": chunks}


def _chunk(described: dict[str, Any]) -> ChunkStorageMetadata:
    return ChunkStorageMetadata(torch.Size(described["offsets"]), torch.Size(described["sizes"]))


def _finished(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
