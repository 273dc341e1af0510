"""Writing a model in Hugging Face form as one GGUF file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gguf import GGUFWriter, LlamaFileType
from numpy.typing import NDArray

from kindling_storage import ObjectStore
from kindling_trainer.checkpoint.gguf.architecture import architecture_of, name_of, write_sizes
from kindling_trainer.checkpoint.gguf.tensors import TYPES, to_gguf
from kindling_trainer.checkpoint.gguf.tokenizer import gguf_tokenizer
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_shape, read_tokenizer, read_weights
from kindling_trainer.checkpoint.huggingface.cast import Dtype
from kindling_trainer.checkpoint.huggingface.weights import Named

FILE = "model.gguf"

_FILE_TYPES = {
    torch.float32: LlamaFileType.ALL_F32,
    torch.float16: LlamaFileType.MOSTLY_F16,
    torch.bfloat16: LlamaFileType.MOSTLY_BF16,
}


def write_gguf(store: ObjectStore, path: Path, name: str, dtype: Dtype | None = None) -> None:
    """Write the model in the Hugging Face folder `store` as the GGUF file `path`, which is there whole or not at all.

    The weights are read twice, for a file begins with what its tensors are; one file of them is in memory at a time.

    Args:
        name: what the file calls the model.
        dtype: of the matrices; as they are, if none is given.

    Raises:
        SpecError: llama.cpp cannot compute the model, or has no such tokenizer; nothing is written then.
        IntegrityError: a file of weights is torn.
        StorageError: the folder cannot be read.
        OSError: the file cannot be written.
    """
    shape, vocab_size = read_shape(store)
    architecture = architecture_of(shape, store.uri)
    tokenizer = gguf_tokenizer(*read_tokenizer(store), vocab_size, store.uri)
    template = read_chat_template(store)
    target = None if dtype is None else getattr(torch, dtype)

    def tensors() -> Iterator[Named]:
        return to_gguf(shape, read_weights(store, shape, vocab_size), target)

    part = path.with_name(f".{path.name}.part")
    writer = GGUFWriter(part, name_of(architecture))
    writer.add_name(name)
    write_sizes(writer, shape, vocab_size)
    tokenizer.write(writer)
    if template is not None:
        writer.add_chat_template(template)
    types = set()
    for title, tensor in tensors():
        types.add(tensor.dtype)
        writer.add_tensor_info(title, tensor.shape, _array(tensor).dtype, tensor.nbytes, TYPES[tensor.dtype])
    narrow = sorted(types - {torch.float32}, key=str)
    writer.add_file_type(_FILE_TYPES[narrow[0] if narrow else torch.float32])
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor in tensors():
            writer.write_tensor_data(_array(tensor))
        writer.close()
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    """The tensor's numbers; those of bfloat16, which numpy has not, as their bits."""
    bits = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    return bits.contiguous().numpy()
