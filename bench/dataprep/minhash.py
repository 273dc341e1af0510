"""MinHash signatures on one core: ours beside datasketch's `update_batch`, on the same texts, bit for bit the same.

    OMP_NUM_THREADS=1 python bench/dataprep/minhash.py [--megabytes 20] [--permutations 128] [--json FILE]

Three comparisons, each over the same shingles of five words, of texts in which both sides find as many words:

- text to signature: for datasketch the words are found by `re.findall` and joined to shingles; it hashes them by SHA-1,
  its default.
- update_batch: the same, but datasketch is given the shingles ready made, and ours still begin at the texts.
- permutations: both are given the same 64-bit hashes; datasketch's `hashfunc` takes their lower half, as ours do, and
  the signatures have to be equal.

Figures are millions of shingles a second of CPU time, the best of three rounds in which the sides take turns.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasketch
import numpy as np
from real_text import texts

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

from kindling_dataprep.steps.minhash import signatures_of
from kindling_dataprep.steps.shingles import shingles
from kindling_dataprep.steps.words import plain_words_of

ROUNDS = 3
SIZE = 5


def main() -> None:
    """Measures, compares the signatures, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--permutations", type=int, default=128)
    options = parser.parse_args()
    documents = [text for text in texts(options.megabytes * 1_000_000) if _is_alike(text)]
    figures = measure(documents, options.permutations)
    print(f"{len(documents):,} documents, {figures['shingles']:,} shingles, {options.permutations} permutations")
    print(f"{'million shingles/s':<28}{'datasketch':>12}{'ours':>10}{'times':>8}")
    for name in ("text to signature", "update_batch", "permutations"):
        theirs, ours = figures[name]["datasketch"], figures[name]["ours"]
        print(f"{name:<28}{theirs:>12.2f}{ours:>10.2f}{ours / theirs:>8.1f}")
    print("signatures:", "equal, bit for bit" if figures["equal"] else "DIFFERENT")
    write_figures(options.json, figures)


def measure(documents: list[str], permutations: int) -> dict[str, Any]:
    """Million shingles a second of each side, and whether the signatures are equal."""
    sets = shingles(documents, SIZE)
    byte_strings = [_as_bytes(text) for text in documents]
    hashes = [sets.of(number).tolist() for number in range(len(documents))]
    assert sum(map(len, byte_strings)) == len(sets.hashes)
    sides: dict[str, Callable[[], Any]] = {
        "text to signature/datasketch": lambda: [_sketch(_as_bytes(text), permutations) for text in documents],
        "update_batch/datasketch": lambda: [_sketch(each, permutations) for each in byte_strings],
        "text to signature/ours": lambda: signatures_of(shingles(documents, SIZE), permutations),
        "permutations/datasketch": lambda: [_sketch(each, permutations, _lower_half) for each in hashes],
        "permutations/ours": lambda: signatures_of(sets, permutations),
    }
    seconds = dict.fromkeys(sides, float("inf"))
    results = {}
    for _ in range(ROUNDS):
        for name, side in sides.items():
            started = time.process_time()
            results[name] = side()
            seconds[name] = min(seconds[name], time.process_time() - started)
    figures: dict[str, Any] = {"documents": len(documents), "shingles": len(sets.hashes)}
    for name, taken in seconds.items():
        comparison, side = name.split("/")
        figures.setdefault(comparison, {})[side] = round(len(sets.hashes) / taken / 1e6, 3)
    figures["update_batch"]["ours"] = figures["text to signature"]["ours"]
    theirs = np.array([sketch.hashvalues for sketch in results["permutations/datasketch"]])
    figures["equal"] = bool((theirs == results["permutations/ours"]).all())
    return figures


def _is_alike(text: str) -> bool:
    """Whether both sides find as many words, and enough of them: a pattern cuts those of some scripts."""
    return SIZE <= len(plain_words_of(text)) == len(_words(text))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _as_bytes(text: str) -> list[bytes]:
    words = _words(text)
    return [" ".join(words[i : i + SIZE]).encode() for i in range(len(words) - SIZE + 1)]


def _lower_half(value: int) -> int:
    return value & 0xFFFFFFFF


def _sketch(values: list[Any], permutations: int, hashfunc: Callable[[Any], int] | None = None) -> datasketch.MinHash:
    chosen = {} if hashfunc is None else {"hashfunc": hashfunc}
    sketch = datasketch.MinHash(num_perm=permutations, **chosen)
    sketch.update_batch(values)
    return sketch


if __name__ == "__main__":
    main()
