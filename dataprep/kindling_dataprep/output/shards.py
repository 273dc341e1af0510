"""Token shards as Megatron-Core's indexed datasets: `NAME.bin` and `NAME.idx`.

`.bin` is the tokens and nothing else, so that any memory map reads it. `.idx`, all little-endian:

    bytes  9   b"MMIDIDX\\x00\\x00"
    uint64     version, 1
    uint8      token type: 8 = uint16, 4 = int32
    uint64     n, number of sequences (ours: one a document)
    uint64     n + 1, number of entries in the document index
    int32[n]   length of each sequence, in tokens
    int64[n]   where each begins in .bin, in bytes
    int64[n+1] index of the first sequence of each document, and n at the end
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindling_api.errors import IntegrityError, explain
from kindling_api.v1alpha1.products import TokenType

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQ")
_CODES: dict[str, int] = {"uint16": 8, "int32": 4}

Tokens = NDArray[Any]
"""One dimension, of the shard's token type."""


@dataclass(frozen=True)
class ShardIndex:
    """What an `.idx` file says."""

    dtype: TokenType
    lengths: NDArray[np.int32]
    """Tokens of each document."""
    pointers: NDArray[np.int64]
    """Where each begins in the `.bin` file, in bytes."""

    def document(self, tokens: Tokens, number: int) -> Tokens:
        """Document `number` out of `tokens`, the content of the `.bin` file."""
        start = int(self.pointers[number]) // np.dtype(self.dtype).itemsize
        return tokens[start : start + int(self.lengths[number])]


def token_type(vocab_size: int) -> TokenType:
    """The smallest type that Megatron knows and that holds every token id."""
    return "uint16" if vocab_size <= 2**16 else "int32"


def write_shard(prefix: Path, documents: Iterable[Tokens], dtype: TokenType) -> tuple[int, int]:
    """Writes `prefix`.bin and `prefix`.idx; returns the numbers of tokens and of documents."""
    lengths = []
    with open(f"{prefix}.bin", "wb") as file:
        for tokens in documents:
            file.write(np.ascontiguousarray(tokens, dtype=dtype).data)
            lengths.append(len(tokens))
    Path(f"{prefix}.idx").write_bytes(_index(np.array(lengths, dtype=np.int64), dtype))
    return sum(lengths), len(lengths)


def _index(lengths: NDArray[np.int64], dtype: TokenType) -> bytes:
    pointers = (np.cumsum(lengths) - lengths) * np.dtype(dtype).itemsize
    header = _HEADER.pack(MAGIC, 1, _CODES[dtype], len(lengths), len(lengths) + 1)
    numbers = np.arange(len(lengths) + 1, dtype="<i8")
    return header + lengths.astype("<i4").tobytes() + pointers.astype("<i8").tobytes() + numbers.tobytes()


def read_index(data: bytes) -> ShardIndex:
    """Reads an `.idx` file that `write_shard` wrote: one sequence a document.

    Raises:
        IntegrityError: it is no such file, or torn.
    """
    if len(data) < _HEADER.size:
        raise _torn(data)
    magic, version, code, sequences, entries = _HEADER.unpack_from(data)
    expected = _HEADER.size + 12 * sequences + 8 * entries
    if (magic, version) != (MAGIC, 1) or code not in _CODES.values() or len(data) != expected:
        raise _torn(data)
    lengths = np.frombuffer(data, "<i4", sequences, _HEADER.size)
    pointers = np.frombuffer(data, "<i8", sequences, _HEADER.size + 4 * sequences)
    return ShardIndex("uint16" if code == _CODES["uint16"] else "int32", lengths, pointers)


def _torn(data: bytes) -> IntegrityError:
    allowed = "a whole Megatron index of version 1 with uint16 or int32 tokens"
    remedy = "see `kindling inspect --verify`, delete the dataset's folder and build it again"
    return IntegrityError(explain("shard index", found=f"{len(data)} bytes", allowed=allowed, remedy=remedy))
