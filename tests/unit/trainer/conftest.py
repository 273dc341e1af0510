"""A tiny dataset written as Megatron lays it out, and run files over it."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from kindling_api.base import canonical_json, digest_of, key_of, short_key
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_api.v1alpha1.products import DatasetManifest, Shard, TokenizerEntry
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Input, PretrainRunFile, Progress, read_run_file
from kindling_api.v1alpha1.status import DocumentCounts
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import commit, put_file, read_manifest
from kindling_trainer.telemetry.metrics import METRICS

VOCAB = [chr(code) for code in range(ord(" "), ord(" ") + 64)]
RunFactory = Callable[..., Path]


def write_shard(prefix: Path, documents: list[np.ndarray[Any, Any]]) -> None:
    """A shard as Megatron-LM's own builder writes it, told independently of the reader under test."""
    tokens = np.concatenate(documents).astype("<u2")
    lengths = [len(document) for document in documents]
    prefix.with_suffix(".bin").write_bytes(tokens.tobytes())
    pointers = np.cumsum([0, *lengths[:-1]]) * 2
    prefix.with_suffix(".idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + struct.pack("<QBQQ", 1, 8, len(lengths), len(lengths) + 1)
        + np.array(lengths, "<i4").tobytes()
        + pointers.astype("<i8").tobytes()
        + np.arange(len(lengths) + 1, dtype="<i8").tobytes()
    )


@pytest.fixture
def dataset(tmp_path: Path) -> Callable[..., str]:
    """Makes a committed dataset of characters; gives its URI. What is planted is document 1 of the first shard."""

    def make(
        train_tokens: int = 5000, validation_tokens: int = 700, name: str = "dataset", planted: Sequence[int] = (),
        end_of_document: int | None = None,
    ) -> str:  # fmt: skip
        folder = tmp_path / name
        folder.mkdir()
        random = np.random.default_rng(0)
        # A walk over the vocabulary in small steps: there is something to learn in a few steps.
        stream = np.cumsum(random.integers(-2, 4, train_tokens + validation_tokens)) % len(VOCAB)
        parts = {"train": stream[:train_tokens], "validation": stream[train_tokens:]}
        shards: dict[str, list[Shard]] = {}
        for part, tokens in parts.items():
            halves = np.array_split(tokens, 2)
            shards[part] = []
            for number, half in enumerate(halves):
                documents = np.array_split(half, 3)
                if planted and (part, number) == ("train", 0):
                    documents.insert(1, np.array(planted))
                path, tokens = f"{part}-{number:05d}", sum(map(len, documents))
                write_shard(folder / path, documents)
                shards[part].append(Shard(path=path, tokens=tokens, documents=len(documents)))
        tokenizer = Tokenizer(models.BPE({char: i for i, char in enumerate(VOCAB)}, []))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        tokenizer.decoder = decoders.Fuse()
        (folder / "tokenizer.json").write_text(tokenizer.to_str())
        store = open_store(folder.as_uri())
        files = [put_file(store, path.name, path.read_bytes()) for path in sorted(folder.iterdir())]
        entry = next(file for file in files if file.path == "tokenizer.json")
        manifest = DatasetManifest(
            key=key_of(name),
            files=files,
            spec={},
            inputs=digest_of(b""),
            versions={},
            documents=DocumentCounts(read=12, kept=12),
            tokenizer=TokenizerEntry(
                digest=entry.digest, kind="char", vocab_size=len(VOCAB), end_of_document=end_of_document
            ),
            dtype="uint16",
            train=shards["train"],
            validation=shards["validation"],
        )
        commit(store, manifest)
        return store.uri

    return make


TINY_MODELS: dict[str, dict[str, Any]] = {
    "llama": {"architecture": "llama", "heads": 4, "kvHeads": 2},
    "gpt2": {"architecture": "gpt2", "heads": 4, "bias": True},
}


@pytest.fixture
def run_file(tmp_path: Path, dataset: Callable[..., str]) -> RunFactory:
    """Makes a run file over a tiny dataset; keyword arguments replace whole fields of the spec."""

    def make(
        *, model: dict[str, Any] | str = "llama", store: str | StorageSpec = "store", name: str = "tiny", **fields: Any
    ) -> Path:
        base = fields.pop("initialize", None)
        uri = fields.pop("dataset", None) or dataset(name=f"dataset-{name}")
        manifest = read_manifest(open_store(uri), DatasetManifest)
        sizes = TINY_MODELS[model] if isinstance(model, str) else model
        spec = {
            "dataset": {"uri": uri},
            "model": {"layers": 2, "width": 32, "context": 16, **sizes},
            "training": {
                "steps": 20,
                "batch": {"tokens": 128, "microBatch": 4},
                "precision": "fp32",
                "compile": "never",
            },
            "checkpoint": {"every": 5},
            "evaluation": {"every": 10, "batches": 2},
        }
        for field, value in fields.items():
            spec[field] = {**spec.get(field, {}), **value}
        parsed = PretrainRunSpec.model_validate(spec, strict=False)
        output = StorageSpec(uri=(tmp_path / store).as_uri()) if isinstance(store, str) else store
        run = PretrainRunFile(
            name=name,
            key=key_of([name, str(store)]),
            output=output,
            spec=parsed,
            dataset=Input(uri=uri, digest=manifest and manifest.digest),
            initialize=base,
        )
        path = tmp_path / f"{name}-{short_key(key_of(run.document()))}.json"
        path.write_bytes(canonical_json(run.document()))
        return path

    return make


class Runs:
    """Run files started as processes, and what they left behind."""

    @staticmethod
    def start(run: Path, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kindling_trainer", str(run), "--progress", str(run.with_suffix(".progress"))]
        command += options
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def finish(self, run: Path, code: int = 0) -> str:
        """Run it to its end, which must have this exit code; returns what it said."""
        process = self.start(run)
        _, errors = process.communicate(timeout=500)
        assert process.returncode == code, errors
        return errors

    @staticmethod
    def train_in_turn(run_files: Sequence[Path]) -> None:
        """Train one run after another in processes that they share, without a launcher: a fraction of the time."""
        sizes = []
        for path in run_files:
            run = read_run_file(path)
            assert not isinstance(run, DatasetBuildFile)
            sizes.append(run.spec.layout().processes)
        given = [f"{run}:{size}" for run, size in zip(run_files, sizes, strict=True)]
        script = str(Path(__file__).with_name("train_in_turn.py"))
        done = subprocess.run([sys.executable, script, *given], stderr=subprocess.PIPE, text=True, timeout=500)
        assert done.returncode == 0, done.stderr

    def kill_after(self, run: Path, step: int, number: int) -> int:
        """Start the run, send it a signal once its curve has reached `step`, and return its exit code."""
        process = self.start(run)
        self.wait_for_step(run, step)
        process.send_signal(number)
        process.communicate(timeout=500)
        return process.returncode

    def wait_for_step(self, run: Path, step: int) -> None:
        until = time.monotonic() + 300
        while len(self.losses(run)) < step:
            assert time.monotonic() < until, f"step {step} was not reached"
            time.sleep(0.01)

    @staticmethod
    def children(process: subprocess.Popen[str]) -> list[int]:
        """The training processes of a launcher, in the order of their ranks; none while they are replaced."""
        found = subprocess.run(["pgrep", "-P", str(process.pid), "rank-"], capture_output=True, text=True)
        return [int(line) for line in found.stdout.split()]

    @staticmethod
    def store(run: Path) -> ObjectStore:
        """The run's folder."""
        document = read_run_file(run)
        return open_store(document.output).child(f"models/{short_key(document.key)}")

    def rows(self, run: Path) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl."""
        store = self.store(run)
        return [json.loads(line) for line in store.get(METRICS).splitlines()] if store.exists(METRICS) else []

    def losses(self, run: Path) -> list[float]:
        return [row["loss"] for row in self.rows(run) if "loss" in row]

    @staticmethod
    def last_word(run: Path) -> Progress:
        return Progress.model_validate_json(run.with_suffix(".progress").read_bytes())


@pytest.fixture
def runs() -> Runs:
    """Starts runs as processes."""
    return Runs()
