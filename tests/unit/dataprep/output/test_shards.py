"""Shards are Megatron's indexed datasets, byte for byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kindling_api.errors import IntegrityError
from kindling_api.v1alpha1.products import TokenType
from kindling_dataprep.output.shards import read_index, token_type, write_shard


def read_as_documented(prefix: Path) -> list[list[int]]:
    """An independent reader, with `struct` alone, of the layout that Megatron-Core's indexed_dataset.py documents."""
    index = Path(f"{prefix}.idx").read_bytes()
    data = Path(f"{prefix}.bin").read_bytes()
    assert index[:9] == b"MMIDIDX\x00\x00"
    version, code, sequences, entries = struct.unpack("<QBQQ", index[9:34])
    assert version == 1
    letter, width = {8: ("H", 2), 4: ("i", 4)}[code]
    lengths = struct.unpack(f"<{sequences}i", index[34 : 34 + 4 * sequences])
    pointers = struct.unpack(f"<{sequences}q", index[34 + 4 * sequences : 34 + 12 * sequences])
    documents = struct.unpack(f"<{entries}q", index[34 + 12 * sequences :])
    assert documents == tuple(range(sequences + 1))
    assert len(data) == width * sum(lengths)
    return [
        list(struct.unpack(f"<{length}{letter}", data[pointer : pointer + width * length]))
        for length, pointer in zip(lengths, pointers, strict=True)
    ]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    documents=st.lists(st.lists(st.integers(0, 65535), max_size=20), max_size=10),
    dtype=st.sampled_from(["uint16", "int32"]),
)
def test_an_independent_reader_finds_what_was_written(
    tmp_path: Path, documents: list[list[int]], dtype: TokenType
) -> None:
    prefix = tmp_path / "shard"
    counts = write_shard(prefix, (np.array(document, dtype=np.int64) for document in documents), dtype)
    assert counts == (sum(map(len, documents)), len(documents))
    assert read_as_documented(prefix) == documents


def test_our_reader_finds_a_document(tmp_path: Path) -> None:
    write_shard(tmp_path / "shard", [np.arange(5), np.arange(7, 10)], "int32")
    index = read_index((tmp_path / "shard.idx").read_bytes())
    tokens = np.memmap(tmp_path / "shard.bin", dtype=index.dtype, mode="r")
    assert index.document(tokens, 1).tolist() == [7, 8, 9]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65, "uint16"), (65_536, "uint16"), (65_537, "int32")])
def test_the_token_type_holds_every_id(vocab_size: int, dtype: str) -> None:
    assert token_type(vocab_size) == dtype


@pytest.mark.parametrize("damage", [lambda data: data[:10], lambda data: data[:-1], lambda data: b"X" + data[1:]])
def test_a_torn_index_is_refused(tmp_path: Path, damage) -> None:
    write_shard(tmp_path / "shard", [np.arange(5)], "uint16")
    with pytest.raises(IntegrityError):
        read_index(damage((tmp_path / "shard.idx").read_bytes()))
