"""A part of a checkpoint is what safetensors itself would write, and is read from anywhere."""

from __future__ import annotations

import io
import os

import pytest
import safetensors.torch
import torch
from torch import Tensor

from kindling_trainer.checkpoint.part_stream import PartStream

TENSORS: dict[str, Tensor] = {
    "small@0": torch.tensor(3.5),
    "b@0,0": torch.arange(15, dtype=torch.float32).reshape(3, 5),
    "half@0": torch.arange(7, dtype=torch.bfloat16),
    "none@0": torch.empty(0, 4),
    "wide@0": torch.arange(5, dtype=torch.float64),
}


@pytest.mark.parametrize(
    "tensors", [TENSORS, {}, {"none": torch.empty(0)}], ids=["some", "none at all", "an empty one"]
)
def test_safetensors_reads_what_was_streamed(tensors: dict[str, Tensor]) -> None:
    read = safetensors.torch.load(PartStream(tensors).read())
    assert read.keys() == tensors.keys()
    assert all(read[name].dtype == tensor.dtype and torch.equal(read[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("size", [1, 3, 8, 64, 1000])
def test_pieces_of_any_size_from_anywhere_are_the_same_bytes(size: int) -> None:
    whole = PartStream(TENSORS).read()
    assert whole == safetensors.torch.save(TENSORS)
    stream = io.BufferedReader(PartStream(TENSORS))
    assert b"".join(iter(lambda: stream.read(size), b"")) == whole
    assert stream.seek(0, os.SEEK_END) == len(whole)
    assert stream.seek(-size % len(whole)) == -size % len(whole)
    assert stream.read() == whole[-size % len(whole) :]
