"""From JSON lines to shards of tokens: a build of ours beside the same steps of datatrove, one worker each.

    python bench/dataprep/end_to_end.py TEXTS.jsonl [--peer PYTHON] [--megabytes N] [--json OUT]

TEXTS.jsonl is what `real_text.py` writes, and PYTHON an interpreter with datatrove[io,processing], spacy, orjson and
tokenizers. Steps: the rules of Gopher, of C4 but for terminal punctuation, and of FineWeb; MinHash deduplication; and
encoding by a tokenizer that was trained before, into shards. Ours removes exact copies besides, verifies candidates,
digests its inputs, keeps a ledger with measures, shuffles, and writes a report. datatrove's words, spaCy's, count
punctuation, so that it removes more sources of programs and has less left to deduplicate and encode.

CPU seconds of all processes, and seconds by the clock; memory is measured by `memory.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from real_text import read

from kindling_api.base import key_of
from kindling_api.resolve import content_of
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_dataprep import tokenizer

HERE = Path(__file__).parent
TRAINED_ON = 2_000
"""Documents."""


def main() -> None:
    """Runs both sides and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--peer", help="an interpreter that has datatrove")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
        folder = Path(name)
        megabytes = write_input(options.texts, folder, options.megabytes * 1e6)
        figures["ours"] = ours(folder)
        if options.peer:
            command = [options.peer, HERE / "peers/datatrove_pipeline.py", folder / "in", folder / "tokenizer.json"]
            figures["datatrove"] = measured([*map(str, command), str(folder / "datatrove")])
    for side in figures.values():
        side["MB/s"] = round(megabytes / side["cpuSeconds"], 3)
    print(f"{megabytes:.0f} MB")
    for name, side in figures.items():
        print(f"{name:<12}", json.dumps(side))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def write_input(path: Path, folder: Path, wanted: float) -> float:
    """Writes the documents and a tokenizer trained on some of them; returns the megabytes of text."""
    texts, total = [], 0
    for text in read(path):
        texts.append(text)
        total += len(text.encode())
        if total >= wanted:
            break
    (folder / "in").mkdir()
    with open(folder / "in/texts.jsonl", "w") as file:
        file.writelines(json.dumps({"text": text, "id": str(i)}) + "\n" for i, text in enumerate(texts))
    (folder / "tokenizer.json").write_bytes(tokenizer.train_bpe([texts[:TRAINED_ON]], 32_000).to_bytes())
    return total / 1e6


def ours(folder: Path) -> dict[str, Any]:
    """The build as `kindling run` does it, with one worker."""
    document = {
        "sources": [{"uri": str(folder / "in")}],
        "filters": [
            {"gopherQuality": {}},
            {"gopherRepetition": {}},
            {"c4": {"requireTerminalPunctuation": False}},
            {"fineWeb": {}},
        ],
        "tokenizer": {"from": {"uri": str(folder / "tokenizer.json")}},
        "engine": {"workers": 1},
    }
    spec = DatasetBuildSpec.model_validate_json(json.dumps(document))
    run = DatasetBuildFile.model_validate(
        {
            "name": "bench",
            "key": key_of(content_of(spec)),
            "output": {"uri": (folder / "store").as_uri()},
            "spec": spec,
        }
    )
    (folder / "run.json").write_text(json.dumps(run.document()))
    command = [sys.executable, "-m", "kindling_dataprep", "run.json", "--progress", "progress.json"]
    figures = measured(command, folder)
    word = Progress.model_validate_json((folder / "progress.json").read_bytes())
    assert word.result is not None, word.message
    return figures | {"kept": word.result.documents.kept, "tokens": word.result.tokens}


def measured(command: list[str], folder: Path | None = None) -> dict[str, Any]:
    """What a command took, and what it said in its last line if that is JSON."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    run = subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in run.stdout.splitlines() if line.startswith(b"{")]
    return {
        "cpuSeconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "seconds": round(time.monotonic() - started, 1),
        **(json.loads(lines[-1]) if lines else {}),
    }


if __name__ == "__main__":
    main()
