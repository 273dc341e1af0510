"""Reads Megatron `.bin`/`.idx` shards as one stream of tokens.

The index file is laid out as Megatron-LM's `IndexedDataset` writes it (megatron/core/datasets/indexed_dataset.py),
little endian: magic, version (u64), dtype code (u8), number of sequences and of documents (u64 each), then the
sequences' lengths (i32) and positions in bytes (i64), then the documents' first sequences (i64). Training reads the
token file alone; the index is read to check that the two belong together.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindling_api.errors import DataError

MAGIC = b"MMIDIDX\x00\x00"
VERSION = 1
DTYPES = {1: np.uint8, 2: np.int8, 3: np.int16, 4: np.int32, 5: np.int64, 8: np.uint16}
_HEADER = struct.Struct("<QBQQ")
_FIXED = len(MAGIC) + _HEADER.size

Tokens = NDArray[np.int64]


class TokenStream:
    """The tokens of several shards, end to end, as if they were one array; nothing is copied until it is read."""

    def __init__(self, shards: Sequence[NDArray[np.generic]]) -> None:
        self._shards = list(shards)
        self._ends = np.cumsum([len(shard) for shard in shards], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, length: int) -> Tokens:
        """`length` tokens from `start` on, fewer where the stream ends."""
        stop = min(start + length, len(self))
        parts = []
        index = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            shard, end = self._shards[index], int(self._ends[index])
            offset = start - (end - len(shard))
            parts.append(shard[offset : offset + min(stop, end) - start])
            start, index = min(stop, end), index + 1
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    def windows(self, starts: Tokens, length: int) -> Tokens:
        """Tokens [len(starts), length]; each window lies within the stream."""
        return np.stack([self.read(int(start), length) for start in starts])


def open_shard(index: Path, path: Path) -> NDArray[np.generic]:
    """The tokens of the `.bin` file at `path`, mapped into memory, checked against its `.idx` file at `index`.

    Raises:
        DataError: the index is not Megatron's, is cut short, or counts other tokens than there are.
    """
    dtype, tokens = read_index(index)
    size = path.stat().st_size
    if size != tokens * dtype.itemsize:
        raise DataError(
            f"{path}: {size} bytes, but its index counts {tokens} tokens of {dtype.itemsize} bytes. "
            "The shard is damaged: build the dataset again."
        )
    return np.memmap(path, dtype=dtype, mode="r", shape=(tokens,)) if tokens else np.zeros(0, dtype)


def read_index(path: Path) -> tuple[np.dtype[np.generic], int]:
    """The dtype of a shard and its number of tokens, from its `.idx` file.

    Raises:
        DataError: it is not a Megatron index, or it is cut short.
    """
    content = path.read_bytes()
    code, sequences, _ = _read_header(str(path), content)
    return np.dtype(DTYPES[code]), int(_lengths(content, sequences).sum(dtype=np.int64))


def document_ends(name: str, content: bytes) -> Tokens:
    """[documents] Where each document of a shard ends, in tokens, from the content of its `.idx` file.

    Raises:
        DataError: it is not a Megatron index, or it is cut short.
    """
    _, sequences, documents = _read_header(name, content)
    ends = np.concatenate([[0], np.cumsum(_lengths(content, sequences), dtype=np.int64)])
    firsts = np.frombuffer(content, dtype="<i8", count=documents, offset=_FIXED + 12 * sequences)
    return ends[firsts[1:]]


def _read_header(name: str, content: bytes) -> tuple[int, int, int]:
    """The code of the dtype, the number of sequences, and that of the entries for documents."""
    if not content.startswith(MAGIC) or len(content) < _FIXED:
        raise DataError(f"{name}: not a Megatron index file. Build the dataset again.")
    version, code, sequences, documents = _HEADER.unpack_from(content, len(MAGIC))
    if version != VERSION or code not in DTYPES:
        raise DataError(
            f"{name}: version {version}, dtype code {code}; known are version 1 and codes {sorted(DTYPES)}."
        )
    if len(content) != _FIXED + 12 * sequences + 8 * documents:
        raise DataError(f"{name}: cut short or too long, for {sequences} sequences. Build the dataset again.")
    return code, sequences, documents


def _lengths(content: bytes, sequences: int) -> NDArray[np.int32]:
    return np.frombuffer(content, dtype="<i4", count=sequences, offset=_FIXED)
