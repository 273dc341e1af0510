"""Safetensors files: tensors as one that is read from start to end, without a second copy of them; and headers."""

from __future__ import annotations

import io
import json
import os
import struct
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from kindling_storage import ObjectStore

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LENGTH_BYTES = 8
_ALIGNMENT = 8
"""Of the first tensor, and so of all of them, as safetensors' own writer has it."""


class PartStream(io.RawIOBase):
    """The file's bytes: eight of the header's length, the header, and the tensors one after another.

    The format is https://github.com/huggingface/safetensors#format. The tensors, contiguous and in the host's memory,
    must stay as they are while they are read.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0])))
        pieces = [memoryview(_header(ordered)), *(_bytes_of(tensor) for tensor in ordered.values())]
        self._pieces = [piece for piece in pieces if len(piece)]
        self._ends = list(accumulate(map(len, self._pieces)))
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ends[-1]}[whence]
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        """Fills the buffer, as far as the file goes."""
        wanted, filled = memoryview(buffer).cast("B"), 0
        while filled < len(wanted) and self._position < self._ends[-1]:
            number = bisect_right(self._ends, self._position)
            piece = self._pieces[number]
            first = self._position - (self._ends[number] - len(piece))
            taken = piece[first : first + len(wanted) - filled]
            wanted[filled : filled + len(taken)] = taken
            filled += len(taken)
            self._position += len(taken)
        return filled


def read_header(store: ObjectStore, path: str) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and what its header says of them and of itself."""
    (length,) = struct.unpack("<Q", store.get_range(path, 0, _LENGTH_BYTES))
    return _LENGTH_BYTES + length, json.loads(store.get_range(path, _LENGTH_BYTES, length))


def _header(tensors: Mapping[str, Tensor]) -> bytes:
    described, place = {}, 0
    for name, tensor in tensors.items():
        offsets = [place, place := place + tensor.nbytes]
        described[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _ALIGNMENT)
    return struct.pack("<Q", len(header)) + header


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
