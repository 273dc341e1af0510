"""Memory: what a build's processes take on an input 20 times as large as fits into the limit naively.

    python bench/dataprep/memory.py [--limit-megabytes 2048] [--times 20] [--workers 2] [--json FILE]

Naively, a program holds all documents with the sets of their shingles, as one does that deduplicates with a library;
what that takes for a megabyte of text is measured in a process of its own. The input is `--times` as large as what fits
into the limit so: documents drawn from the words of real texts, a tenth of them repeated with a line more, in three
files that are read in three ways: JSON lines (in parts), Parquet (by row groups), and gzipped JSON lines (by one task).
The build is the whole one: Gopher's rules, both kinds of deduplication, toxicity and a trained tokenizer.
Memory is each process's largest resident size, sampled five times a second from /proc.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from real_text import texts

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import build_file, descendants, options_of, write_figures

from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress

MEGABYTE = 10**6
WORDS_IN_A_DOCUMENT = 400
NEAR_COPIES = 0.1
ROW_GROUP = 2000


def main() -> None:
    """Measures what naive code takes, writes the input, builds, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--limit-megabytes", type=int, default=2048, help="of memory, for each process")
    parser.add_argument("--times", type=float, default=20, help="how much more than fits into the limit naively")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        naive = pool.submit(naive_megabytes, 20).result() / 20
    megabytes = round(options.times * options.limit_megabytes / naive)
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as folder:
        write_input(Path(folder) / "input", megabytes)
        figures = {
            "limitMegabytes": options.limit_megabytes,
            "naiveMegabytesForOne": round(naive, 1),
            "inputMegabytes": megabytes,
            **measure(run_file(Path(folder), options.workers), Path(folder)),
        }
    peak = max(figures["peakMegabytes"].values())
    figures["withinLimit"] = peak <= options.limit_megabytes
    for name, value in figures.items():
        print(f"{name:<24}{value}")
    write_figures(options.json, figures)
    sys.exit(not figures["withinLimit"])


def documents(seed: int) -> Iterator[str]:
    """Texts of lines of words, without end."""
    chance = random.Random(seed)
    words = [word for text in texts(3 * MEGABYTE) for word in text.split() if word.isalpha()]
    while True:
        drawn = iter(chance.choices(words, k=chance.randint(WORDS_IN_A_DOCUMENT // 2, 2 * WORDS_IN_A_DOCUMENT)))
        lines = iter(lambda drawn=drawn: " ".join(islice(drawn, 12)), "")
        text = "".join(f"The {line} of that.\n" for line in lines)
        yield text
        if chance.random() < NEAR_COPIES:
            yield text + "That was all.\n"


def up_to(megabytes: float, seed: int) -> Iterator[str]:
    """Of those, so many megabytes."""
    left = megabytes * MEGABYTE
    for text in documents(seed):
        if left <= 0:
            return
        left -= len(text)
        yield text


def naive_megabytes(megabytes: int) -> float:
    """What all of them take, each as a string and the set of its shingles of five words."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = []
    for text in up_to(megabytes, 0):
        words = text.split()
        kept.append((text, {" ".join(words[start : start + 5]) for start in range(len(words) - 4)}))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / MEGABYTE


def write_input(folder: Path, megabytes: int) -> None:
    """A third of the input in each of the three files."""
    folder.mkdir()
    with open(folder / "lines.jsonl", "w") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in up_to(megabytes / 3, 1))
    with gzip.open(folder / "packed.jsonl.gz", "wt", compresslevel=1) as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in up_to(megabytes / 3, 2))
    rows = up_to(megabytes / 3, 3)
    with pq.ParquetWriter(folder / "rows.parquet", pa.schema({"text": pa.string()})) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_table(pa.table({"text": group}))


def run_file(folder: Path, workers: int) -> DatasetBuildFile:
    """The run file of the whole build."""
    document = {
        "sources": [{"uri": str(folder / "input")}],
        "filters": [{"formatting": {}}, {"gopherQuality": {}}, {"gopherRepetition": {}}],
        "tokenizer": {"train": {"vocabSize": 8000}},
        "toxicity": {},
        "engine": {"workers": workers},
    }
    return build_file("memory", document, folder / "store")


def measure(run: DatasetBuildFile, folder: Path) -> dict[str, Any]:
    """Runs the build, and watches its processes."""
    progress = folder / "progress.json"
    (folder / "run.json").write_text(json.dumps(run.document()))
    command = [sys.executable, "-m", "kindling_dataprep", str(folder / "run.json"), "--progress", str(progress)]
    started = time.monotonic()
    process = subprocess.Popen(command)
    peaks: defaultdict[str, int] = defaultdict(int)
    stages: defaultdict[str, int] = defaultdict(int)
    while process.poll() is None:
        stage = stage_of(progress)
        for kind, size in resident(process.pid):
            peaks[kind] = max(peaks[kind], size)
            stages[f"{kind}, {stage}"] = max(stages[f"{kind}, {stage}"], size)
        time.sleep(0.2)
    word = Progress.model_validate_json(progress.read_bytes())
    if word.result is None:
        sys.exit(word.message)
    seconds = time.monotonic() - started
    counts = word.result.documents
    return {
        "seconds": round(seconds),
        "documents": counts.read,
        "removed": counts.removed,
        "peakMegabytes": {kind: round(size / MEGABYTE) for kind, size in peaks.items()},
        "peakMegabytesByStage": {stage: round(size / MEGABYTE) for stage, size in stages.items()},
    }


def stage_of(progress: Path) -> str:
    """The stage that the build is in."""
    try:
        word = Progress.model_validate_json(progress.read_bytes())
    except (FileNotFoundError, ValueError):
        return "beginning"
    return word.dataset.stage if word.dataset is not None else "end"


def resident(driver: int) -> Iterator[tuple[str, int]]:
    """`driver` or `worker`, and its resident bytes without the pages of Ray's shared object store."""
    for process in descendants(driver):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes()
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
            size = sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024
        except (FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
            continue
        if process == driver or command.startswith(b"ray::"):
            yield ("driver" if process == driver else "worker"), size


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
