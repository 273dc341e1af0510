"""A base with another's adapters: a model of its own, whose weights are the base's, in memory once."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import nn

from kindling_api.errors import SpecError, explain
from kindling_storage import ObjectStore, open_store
from kindling_trainer.chat.template import ChatTemplate
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_tokenizer
from kindling_trainer.checkpoint.huggingface.folder import put_json
from kindling_trainer.checkpoint.huggingface.peft import (
    ADAPTER_CONFIG,
    PeftAdapter,
    fingerprint,
    fingerprinted,
    read_adapter,
)
from kindling_trainer.checkpoint.huggingface.tokenizer import CONFIG, TOKENIZER, read_json
from kindling_trainer.inference.generate import Generator
from kindling_trainer.models import Decoder
from kindling_trainer.models.lora import adapt_linear


def load_adapted(base: Generator, base_folder: ObjectStore, folder: ObjectStore) -> Generator:
    """The base with the adapters of a PEFT folder, and the tokenizer and the chat template that lie beside them.

    Args:
        base_folder: the Hugging Face folder that `base` was read from.

    Raises:
        SpecError: there are no adapters, or not for this base.
        IntegrityError, StorageError: as `read_adapter`.
    """
    model = adapted(base.model, read_adapter(folder, base.model.shape))
    if not folder.exists(TOKENIZER):
        return replace(base, model=model)
    with TemporaryDirectory(prefix="kindling-adapter-") as name:  # files of the adapter go before those of the base
        store = open_store(Path(name).resolve().as_uri())
        for source in (base_folder, folder):
            for info in source.list():
                if info.path.endswith((".json", ".jinja")) and info.path != ADAPTER_CONFIG:
                    store.put(info.path, source.get(info.path))
        put_json(store, CONFIG, read_json(store, CONFIG) | {"vocab_size": model.embedding.num_embeddings})
        tokenizer, special = read_tokenizer(store)
        template = read_chat_template(store)
    chat = None if template is None else ChatTemplate(template, tokenizer, special.named)
    return Generator(model, tokenizer, special.eos, chat, frozenset(special.stops), special.bos)


def adapted(base: Decoder, adapter: PeftAdapter) -> Decoder:
    """A model with the base's own weights and an adapter's; the base stays as it is.

    Raises:
        SpecError: the adapter was trained on other weights, or for layers that the base has not, or of other sizes.
    """
    model = deepcopy(base, {id(parameter): parameter for parameter in base.parameters()})
    linears = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    for name, each in adapter.layers.items():
        linear = linears.get(name)
        size = (each.high.shape[0], each.low.shape[1])
        if linear is None or (linear.out_features, linear.in_features) != size or name == "head":
            raise _other_base(adapter, base, f"{name} of {size[1]} to {size[0]} numbers")
        parent, _, own = name.rpartition(".")
        setattr(model.get_submodule(parent), own, adapt_linear(linear, each.low, each.high, each.scale))
    if adapter.base is not None and adapter.base != fingerprint(base.get_parameter(fingerprinted(base.shape))):
        raise _other_base(adapter, base, "a model with other weights")
    if (rows := adapter.rows.get("embedding.weight")) is not None:
        if rows.shape[1] != base.shape.width:
            raise _other_base(adapter, base, f"an embedding of width {rows.shape[1]}")
        model.embedding = nn.Embedding.from_pretrained(rows)
        model.tie()
    if (rows := adapter.rows.get("head.weight")) is not None:
        model.head = nn.Linear(rows.shape[1], len(rows), bias=False, device="meta")
        model.head.weight = nn.Parameter(rows)
    return model.eval()


def _other_base(adapter: PeftAdapter, base: Decoder, found: str) -> SpecError:
    shape = base.shape
    allowed = f"adapters of this base, a {shape.architecture} model with {shape.layers} layers of width {shape.width}"
    remedy = "name the base that the adapter was trained on"
    return SpecError(explain(adapter.uri, found=f"one for {found}", allowed=allowed, remedy=remedy))
