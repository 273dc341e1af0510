"""Deduplication from files to the list of what goes, on one core: ours beside datatrove's, with pairs planted in it.

    OMP_NUM_THREADS=1 python bench/dataprep/dedup.py TEXTS.jsonl [--peer PYTHON] [--megabytes N] [--json OUT]

TEXTS.jsonl is what `real_text.py` writes, and PYTHON an interpreter with datatrove[io,processing], spacy and orjson. To
every tenth document an altered copy is added, some above the threshold of 0.8 and some below. Both sides read JSON
lines and end with the numbers of the documents to remove: ours are the first two stages of a build without rules, in
which exact copies are removed and candidates verified as well; datatrove's are its four stages with its defaults (14
bands of 8).

Recall: of the planted pairs whose true similarity is 0.8 or more, those in which one document was removed. Precision:
of the near-duplicates that were removed, those with a true similarity of 0.8 or more to another document of their
cluster; datatrove does not say what it kept, so that it has none here. Speed: megabytes of UTF-8 a second of CPU time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

from kindling_api.base import key_of
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_dataprep.executors import tasks
from kindling_dataprep.executors.local import LocalExecutor
from kindling_dataprep.output import ledger
from kindling_dataprep.stages.clean import CleanTask, clean
from kindling_dataprep.stages.corpus import corpus_of
from kindling_dataprep.stages.deduplicate import deduplicate
from kindling_dataprep.steps.read import list_inputs
from kindling_dataprep.steps.recall import planted_pairs
from kindling_dataprep.steps.shingles import shingle_set

HERE = Path(__file__).parent
SIMILARITIES = (0.81, 0.85, 0.9, 0.95, 0.6, 0.7)
THRESHOLD = 0.8


def main() -> None:
    """Plants, measures both sides, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--peer", help="an interpreter that has datatrove")
    parser.add_argument("--megabytes", type=float, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
        folder = Path(name)
        texts, pairs = plant(options.texts, options.megabytes * 1e6)
        (folder / "in").mkdir()
        with open(folder / "in/texts.jsonl", "w") as file:
            file.writelines(json.dumps({"text": text, "id": str(i)}) + "\n" for i, text in enumerate(texts))
        figures = {"ours": ours(folder, texts)}
        if options.peer:
            command = [options.peer, HERE / "peers/datatrove_dedup.py", folder / "in", folder / "datatrove"]
            run = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            figures["datatrove"] = json.loads(run.stdout.splitlines()[-1])
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    true = [pair for pair in pairs if similarity(*(texts[i] for i in pair)) >= THRESHOLD]
    print(f"{len(texts):,} documents, {megabytes:.0f} MB, {len(true):,} planted pairs of {len(pairs):,} are duplicates")
    for side in figures.values():
        removed = set(side.pop("removed"))
        side["megabytesPerSecond"] = round(megabytes / side["seconds"], 3)
        side["recall"] = round(sum(not removed.isdisjoint(pair) for pair in true) / len(true), 5)
    for name, side in figures.items():
        print(f"{name:<12}", json.dumps(side))
    write_figures(options.json, figures)


def plant(path: Path, wanted: float) -> tuple[list[str], list[tuple[int, int]]]:
    """The documents, and the numbers of the pairs that were planted among them."""
    texts: list[str] = []
    total = 0
    with open(path) as file:
        for line in file:
            texts.append(json.loads(line)["text"])
            total += len(texts[-1])
            if total >= wanted:
                break
    chosen = [number for number in range(0, len(texts), 10) if 2_000 <= len(texts[number]) <= 20_000]
    planted = planted_pairs([texts[number] for number in chosen], SIMILARITIES, seed=1)
    pairs = [(number, len(texts) + i) for i, number in enumerate(chosen)]
    return texts + [pair.altered for pair in planted], pairs


def ours(folder: Path, texts: list[str]) -> dict[str, Any]:
    """CPU seconds, what was removed, and the precision."""
    document = {"sources": [{"uri": str(folder / "in")}], "filters": [], "tokenizer": {"byte": {}}}
    spec = DatasetBuildSpec.model_validate_json(json.dumps(document))
    job = tasks.Job(spec, StorageSpec(uri=(folder / "store").as_uri()), f"datasets/{key_of({})}")
    inputs = list_inputs(spec.sources, open_store=job.open_input)
    started = time.process_time()
    groups = tasks.split(inputs)
    parts = [clean(CleanTask(job, index, group))[1] for index, group in enumerate(groups)]
    cleaned = time.process_time()
    part = deduplicate(corpus_of(job, parts), LocalExecutor())
    seconds = time.process_time() - started
    rows = ledger.read_removed(job.store()).to_pylist()
    return {
        "seconds": round(seconds, 1),
        "deduplicating": round(seconds - (cleaned - started), 1),
        "removed": [_number(row["id"]) for row in rows],
        "counts": part.facts.removed,
        "candidates": part.facts.candidates,
        "precision": precision(rows, texts),
    }


def precision(rows: list[dict[str, Any]], texts: list[str]) -> float:
    """Of the documents removed as near-duplicates, the share that is one of another document of its cluster."""
    clusters: dict[str, list[str]] = {}
    for row in rows:
        clusters.setdefault(row["kept"], [row["kept"]]).append(row["id"])
    near = [row for row in rows if row["rule"] == "minHash"]
    right = 0
    for row in near:
        others = (other for other in clusters[row["kept"]] if other != row["id"])
        text = texts[_number(row["id"])]
        right += any(similarity(text, texts[_number(other)]) >= THRESHOLD for other in others)
    return round(right / len(near), 5) if near else 1.0


def similarity(one: str, other: str) -> float:
    """The true Jaccard similarity of the sets of words."""
    first, second = shingle_set(one, 5), shingle_set(other, 5)
    return len(first & second) / len(first | second)


def _number(id: str) -> int:
    return int(id.rpartition("#")[2]) - 1


if __name__ == "__main__":
    main()
