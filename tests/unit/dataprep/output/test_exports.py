"""Exports are what llm.c's and nanoGPT's own readers read; the readers here are theirs, shortened to what reads."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep.build import build
from kindling_dataprep.output.exports import export_dataset, tokens_as_bytes
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest

TEXT = "Ein Fisch schläft.\nDer Bär auch 🐻.\n" * 40


def dataset(tmp_path: Path, new_run, **fields) -> tuple[ObjectStore, DatasetManifest]:
    for number in range(8):
        (tmp_path / f"{number}.txt").write_text(f"{number}: {TEXT}")
    fields = {"deduplicate": {"exact": False}, "validation": {"fraction": 0.3}} | fields
    result = build(new_run(tmp_path / "*.txt", **fields), Tracker(ProgressWriter(None)))
    store = open_store(result.uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    return store, manifest


def load_data_shard(path: Path) -> np.ndarray:
    """`_load_data_shard` of llm.c's train_gpt2.py and train_llama3.py, and the check of file size in dataloader.h."""
    with open(path, "rb") as file:
        header = np.frombuffer(file.read(256 * 4), dtype=np.int32)
        assert (header[0], header[1]) in ((20240520, 1), (20240801, 7))
        width = np.uint16 if header[1] == 1 else np.uint32
        tokens = np.frombuffer(file.read(), dtype=width)
    assert len(tokens) == header[2]
    return tokens


def read_tokenizer(path: Path) -> tuple[list[bytes], int]:
    """`tokenizer_init` of llm.c's llmc/tokenizer.h."""
    data = path.read_bytes()
    header = np.frombuffer(data[:1024], dtype=np.uint32)
    assert (header[0], header[1]) == (20240328, 2)
    tokens, at = [], 1024
    for _ in range(header[2]):
        length = data[at]
        assert length > 0
        tokens.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    assert at == len(data)
    return tokens, int(header[3])


def shards(store: ObjectStore, manifest: DatasetManifest, part: str) -> np.ndarray:
    return np.concatenate(
        [np.frombuffer(store.get(f"{each.path}.bin"), manifest.dtype) for each in getattr(manifest, part)]
    )


def test_llm_c_reads_the_same_tokens_and_prints_the_same_text(tmp_path: Path, new_run) -> None:
    store, manifest = dataset(tmp_path, new_run, shards={"tokensPerShard": 600})
    names = export_dataset(store, manifest, tmp_path / "out", "llmc")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    for part, pattern in (("train", "data_train_*.bin"), ("validation", "data_val_*.bin")):
        read = np.concatenate([load_data_shard(path) for path in sorted((tmp_path / "out").glob(pattern))])
        assert (read == shards(store, manifest, part)).all()
    tokens, end = read_tokenizer(tmp_path / "out/tokenizer.bin")
    assert end == manifest.tokenizer.end_of_document
    printed = b"".join(tokens[number] for number in shards(store, manifest, "validation")).decode()
    assert printed.count(TEXT) == printed.count("<|endoftext|>") == sum(each.documents for each in manifest.validation)


@pytest.mark.parametrize("tokenizer", [{"char": {}}, {"byte": {}}, {"train": {"vocabSize": 300}}], ids=str)
def test_nanogpt_reads_the_same_tokens_and_their_meaning(tmp_path: Path, new_run, tokenizer: dict) -> None:
    store, manifest = dataset(tmp_path, new_run, tokenizer=tokenizer)
    export_dataset(store, manifest, tmp_path / "out", "nanogpt")
    for part, name in (("train", "train.bin"), ("validation", "val.bin")):
        read = np.memmap(tmp_path / "out" / name, dtype=np.uint16, mode="r")  # train.py, get_batch
        assert (read == shards(store, manifest, part)).all()
    meta = pickle.loads((tmp_path / "out/meta.pkl").read_bytes())
    assert meta["vocab_size"] == manifest.tokenizer.vocab_size
    encoded = [meta["stoi"][character] for character in "Ein Fisch\n"]  # sample.py
    assert "".join(meta["itos"][number] for number in encoded) == "Ein Fisch\n"


def test_tokens_read_as_the_tokenizer_decodes_them(tmp_path: Path, new_run) -> None:
    store, manifest = dataset(tmp_path, new_run)
    tokenizer = Tokenizer.from_str(store.get("tokenizer.json").decode())
    tokens = tokens_as_bytes(tokenizer, manifest.tokenizer.vocab_size)
    assert b"".join(tokens[number] for number in tokenizer.encode(TEXT).ids).decode() == TEXT
    assert len(set(tokens)) == manifest.tokenizer.vocab_size


def test_what_a_form_cannot_hold_is_refused(tmp_path: Path, new_run) -> None:
    store, manifest = dataset(tmp_path, new_run, validation={"fraction": 0.0}, tokenizer={"byte": {}})
    with pytest.raises(SpecError, match=r"--to llmc: found nothing held out; allowed: both parts\."):
        export_dataset(store, manifest, tmp_path / "out", "llmc")
    wide = manifest.model_copy(update={"dtype": "int32", "validation": manifest.train})
    with pytest.raises(SpecError, match=r"--to nanogpt: found tokens as int32; allowed: uint16\."):
        export_dataset(store, wide, tmp_path / "out", "nanogpt")
