"""How fast texts become tokens: on one core, and on several at once.

    python bench/dataprep/encoding.py TEXTS.jsonl [--splitting gpt2|llama3] [--megabytes N] [--processes 2] [--json OUT]

TEXTS.jsonl is what `real_text.py` writes. A tokenizer of 32,000 tokens is trained on the first tenth; then one process
encodes all documents, and several processes encode all documents each. Megabytes of UTF-8 a second and core, from the
first document to the last of the slowest process; efficiency is that of several against one. Both by the clock, and by
the processor's time, which counts on a machine that has other work. Beside it the `tokenizers` library on the first
tenth, by the processor's time, and how many of its documents have other ids there.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from real_text import read
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

from kindling_api.v1alpha1.dataset_build import TrainTokenizer
from kindling_dataprep.tokenize import tokenizer
from kindling_dataprep.tokenize.word_cache import LLAMA3

BATCH_CHARACTERS = 4 << 20
VOCABULARY = 32_000
CLOCKS = {"clock": time.monotonic, "processor": time.process_time}


def main() -> None:
    """Trains, encodes, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--splitting", choices=("gpt2", "llama3"), default="gpt2")
    parser.add_argument("--megabytes", type=float, default=60)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as in a worker
    texts = _first(read(options.texts), options.megabytes * 1e6)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    tenth = _first(texts, options.megabytes * 1e5)
    trained = _trained(options.splitting, tenth)
    figures: dict[str, Any] = {"megabytes": round(megabytes, 1)} | beside_the_library(tenth, trained)
    for processes in (1, options.processes):
        for clock, seconds in measure(texts, trained, processes).items():
            figures[f"MB/s/core, {processes}, {clock}"] = round(megabytes / seconds, 3)
    for clock in CLOCKS:
        one, several = (figures[f"MB/s/core, {processes}, {clock}"] for processes in (1, options.processes))
        figures[f"efficiency, {clock}"] = round(several / one, 3)
    for name, figure in figures.items():
        print(f"{name:<26}{figure:>10}")
    write_figures(options.json, figures)


def beside_the_library(texts: list[str], trained: bytes) -> dict[str, Any]:
    """The library's speed, and in how many documents its ids are others."""
    library, encoder = Tokenizer.from_str(trained.decode()), loaded(trained)
    library.encode_special_tokens = True
    started = time.process_time()
    theirs = [each.ids for each in library.encode_batch_fast(texts, add_special_tokens=False)]
    seconds = time.process_time() - started
    end = [] if encoder.end_of_document is None else [encoder.end_of_document]
    others = sum(ours.tolist() != ids + end for ours, ids in zip(encoder.encode(texts), theirs, strict=True))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    return {"MB/s/core, library": round(megabytes / seconds, 3), "documents that differ": others}


def _trained(splitting: str, texts: list[str]) -> bytes:
    if splitting == "gpt2":
        return tokenizer.train_bpe(_batches(texts), TrainTokenizer(vocab_size=VOCABULARY)).to_bytes()
    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    end = [tokenizer.END_OF_DOCUMENT]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=end, initial_alphabet=alphabet, show_progress=False
    )
    library.train_from_iterator(texts, trainer)
    return library.to_str().encode()


def measure(texts: list[str], trained: bytes, processes: int) -> dict[str, float]:
    """Seconds of the slowest of so many processes, which begin together, by each of the clocks."""
    context = multiprocessing.get_context("fork")  # the texts are there already
    together, seconds = context.Barrier(processes), context.SimpleQueue()
    workers = [context.Process(target=_encode, args=(texts, trained, together, seconds)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    taken = [seconds.get() for _ in workers]
    for worker in workers:
        worker.join()
    return {clock: max(seconds[clock] for seconds in taken) for clock in CLOCKS}


def loaded(trained: bytes) -> tokenizer.TextEncoder:
    """The tokenizer, which ends documents with the token that it was trained with for that."""
    end = Tokenizer.from_str(trained.decode()).token_to_id(tokenizer.END_OF_DOCUMENT)
    return tokenizer.load(trained, "bpe", end)


def _encode(texts: list[str], trained: bytes, together: Barrier, seconds: Any) -> None:
    encoder = loaded(trained)
    together.wait()
    started = {name: clock() for name, clock in CLOCKS.items()}
    for batch in _batches(texts):
        encoder.encode(batch)
    seconds.put({name: clock() - started[name] for name, clock in CLOCKS.items()})


def _first(texts: list[str], wanted: float) -> list[str]:
    total = 0
    for number, text in enumerate(texts):
        total += len(text)
        if total >= wanted:
            return texts[: number + 1]
    return texts


def _batches(texts: list[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if sum(map(len, batch)) >= BATCH_CHARACTERS:
            yield batch
            batch = []
    if batch:
        yield batch


if __name__ == "__main__":
    main()
