"""The weights of a Hugging Face folder in another type."""

from __future__ import annotations

from typing import Literal

import torch
from safetensors.torch import save

from kindling_storage import ObjectStore
from kindling_trainer.checkpoint.huggingface.folder import INDEX, load_tensors, put_json, weight_files
from kindling_trainer.checkpoint.huggingface.tokenizer import CONFIG, read_json

Dtype = Literal["float32", "float16", "bfloat16"]


def cast(store: ObjectStore, dtype: Dtype) -> None:
    """Write the weights in the folder `store` anew, each rounded to the nearest value of `dtype`; one file in memory at
    a time. What was read from this type, and not trained, becomes what it was, bit for bit.

    Raises:
        SpecError: there is no model.
        IntegrityError: a file is torn.
        StorageError: the store cannot be read or written.
    """
    size = 0
    for path in weight_files(store):
        tensors = {name: tensor.to(getattr(torch, dtype)) for name, tensor in load_tensors(store, path).items()}
        size += sum(tensor.nbytes for tensor in tensors.values())
        store.put(path, save(tensors, metadata={"format": "pt"}))
    if store.exists(INDEX):
        index = read_json(store, INDEX)
        put_json(store, INDEX, index | {"metadata": {**index.get("metadata", {}), "total_size": size}})
    config = read_json(store, CONFIG)
    put_json(store, CONFIG, config | {"dtype" if "dtype" in config else "torch_dtype": dtype})
