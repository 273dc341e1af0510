"""A dataset in the forms that karpathy's trainers read: llm.c's `.bin` files, and nanoGPT's data folder.

llm.c (`dev/data/data_common.py`, `llmc/dataloader.h`, `llmc/tokenizer.h`): a header of 256 int32, of which the first
three are magic, version and number of tokens, and then the tokens, as uint16 for GPT-2's programs or as uint32 for
Llama 3's. nanoGPT (`train.py`, `sample.py`): `train.bin` and `val.bin`, nothing but tokens as uint16, and `meta.pkl`.
In both, tokens follow one another as in the dataset's shards, each document with its end token.
"""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import DatasetManifest, Shard
from kindling_dataprep.tokenize.tokenizer import byte_characters
from kindling_storage import ObjectStore

Form = Literal["llmc", "nanogpt"]

LARGEST_FILE = 2**31 - 1
"""Tokens in a file of llm.c, whose count is an int32."""

_HEADER_INTS = 256
_TOKENIZER_HEADER = (20240328, 2)
_DATA_HEADERS = {"uint16": (20240520, 1), "int32": (20240801, 7)}
_LONGEST_TOKEN = 255
"""Bytes; llm.c prints no more of a token."""


def export_dataset(store: ObjectStore, manifest: DatasetManifest, folder: Path, form: Form) -> list[str]:
    """Writes the dataset in the folder `store` into `folder`; returns the names of the files.

    Raises:
        SpecError: the form cannot hold this dataset.
    """
    if not manifest.validation_tokens:
        remedy = "set spec.validation and build the dataset again"
        raise SpecError(explain(f"--to {form}", found="nothing held out", allowed="both parts", remedy=remedy))
    folder.mkdir(parents=True, exist_ok=True)
    write: Callable[[ObjectStore, DatasetManifest, Path], list[str]] = {"llmc": to_llmc, "nanogpt": to_nanogpt}[form]
    return write(store, manifest, folder)


def to_llmc(store: ObjectStore, manifest: DatasetManifest, folder: Path) -> list[str]:
    """`data_train_000000.bin` and so on, one a shard, `data_val_…`, and `tokenizer.bin`, with which llm.c prints."""
    names = []
    for part, shards in (("train", manifest.train), ("val", manifest.validation)):
        for number, shard in enumerate(shards):
            if shard.tokens > LARGEST_FILE:
                found, allowed = f"{shard.tokens:,} tokens in {shard.path}", f"at most {LARGEST_FILE:,}"
                remedy = "build the dataset with a smaller spec.shards.tokensPerShard"
                raise SpecError(explain("--to llmc", found=found, allowed=allowed, remedy=remedy))
            names.append(f"data_{part}_{number:06d}.bin")
            _write(store, [shard], folder / names[-1], _header(*_DATA_HEADERS[manifest.dtype], shard.tokens))
    tokens = tokens_as_bytes(_tokenizer(store, manifest), manifest.tokenizer.vocab_size)
    end = manifest.tokenizer.end_of_document
    parts = [_header(*_TOKENIZER_HEADER, len(tokens), 0 if end is None else end)]
    for token in tokens:
        shown = token[:_LONGEST_TOKEN] or b"?"  # an id that no token has
        parts.append(struct.pack("<B", len(shown)) + shown)
    (folder / "tokenizer.bin").write_bytes(b"".join(parts))
    return [*names, "tokenizer.bin"]


def to_nanogpt(store: ObjectStore, manifest: DatasetManifest, folder: Path) -> list[str]:
    """`train.bin`, `val.bin` and `meta.pkl`; exact for characters.

    Of other tokenizers, `meta.pkl` says the size and how tokens read; `sample.py` then encodes a prompt by characters.
    """
    if manifest.dtype != "uint16":
        found, remedy = f"tokens as {manifest.dtype}", "use a vocabulary of at most 65,536 tokens, or --to llmc"
        raise SpecError(explain("--to nanogpt", found=found, allowed="uint16", remedy=remedy))
    _write(store, manifest.train, folder / "train.bin")
    _write(store, manifest.validation, folder / "val.bin")
    tokens = tokens_as_bytes(_tokenizer(store, manifest), manifest.tokenizer.vocab_size)
    texts = [token.decode(errors="replace") for token in tokens]
    ids = {text: number for number, text in reversed(list(enumerate(texts)))}
    meta = {"vocab_size": len(texts), "itos": dict(enumerate(texts)), "stoi": ids}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta, protocol=4))
    return ["train.bin", "val.bin", "meta.pkl"]


def tokens_as_bytes(tokenizer: Tokenizer, vocab_size: int) -> list[bytes]:
    """What each token id stands for; nothing, for one that no token has."""
    is_byte_level = (json.loads(tokenizer.to_str())["decoder"] or {}).get("type") == "ByteLevel"
    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    added = tokenizer.get_added_tokens_decoder()
    tokens = []
    for number in range(vocab_size):
        token = tokenizer.id_to_token(number) or ""
        if number in added:
            tokens.append(token.encode())
        elif is_byte_level:
            tokens.append(bytes(byte_of[character] for character in token))
        else:
            tokens.append(tokenizer.decode([number], skip_special_tokens=False).encode())
    return tokens


def _tokenizer(store: ObjectStore, manifest: DatasetManifest) -> Tokenizer:
    return Tokenizer.from_str(store.get(manifest.tokenizer.path).decode())


def _header(*values: int) -> bytes:
    header = np.zeros(_HEADER_INTS, dtype="<i4")
    header[: len(values)] = values
    return header.tobytes()


def _write(store: ObjectStore, shards: Sequence[Shard], path: Path, header: bytes = b"") -> None:
    with path.open("wb") as file:
        file.write(header)
        for shard in shards:
            with store.open(f"{shard.path}.bin") as stream:
                shutil.copyfileobj(stream, file, 1 << 20)
