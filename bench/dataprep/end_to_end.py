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

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from real_text import read

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import build_file, measured, options_of, write_figures

from kindling_api.v1alpha1.dataset_build import TrainTokenizer
from kindling_api.v1alpha1.runfile import Progress
from kindling_dataprep.tokenize import tokenizer

HERE = Path(__file__).parent
TRAINED_ON = 2_000
"""Documents."""


def main() -> None:
    """Runs both sides and reports."""
    parser = options_of(__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--peer", help="an interpreter that has datatrove")
    parser.add_argument("--megabytes", type=float, default=200)
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
        folder = Path(name)
        megabytes = write_input(options.texts, folder, options.megabytes * 1e6)
        figures["ours"] = ours(folder)
        if options.peer:
            command = [options.peer, HERE / "peers/datatrove_pipeline.py", folder / "in", folder / "tokenizer.json"]
            figures["datatrove"] = usage([*command, folder / "datatrove"])
    for side in figures.values():
        side["MB/s"] = round(megabytes / side["cpuSeconds"], 3)
    print(f"{megabytes:.0f} MB")
    for name, side in figures.items():
        print(f"{name:<12}", json.dumps(side))
    write_figures(options.json, figures)


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
    (folder / "tokenizer.json").write_bytes(tokenizer.train_bpe([texts[:TRAINED_ON]], TrainTokenizer()).to_bytes())
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
    run = build_file("bench", document, folder / "store")
    (folder / "run.json").write_text(json.dumps(run.document()))
    command: list[str | Path] = [sys.executable, "-m", "kindling_dataprep", "run.json", "--progress", "progress.json"]
    figures = usage(command, folder)
    word = Progress.model_validate_json((folder / "progress.json").read_bytes())
    assert word.result is not None, word.message
    return figures | {"kept": word.result.documents.kept, "tokens": word.result.tokens}


def usage(command: list[str | Path], folder: Path | None = None) -> dict[str, Any]:
    """What a command took, and what it printed last if that is JSON."""
    used = measured(command, {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}, folder)
    lines = [line for line in used.output.splitlines() if line.startswith("{")]
    figures: dict[str, Any] = {"cpuSeconds": round(used.cpu_seconds, 1), "seconds": round(used.seconds, 1)}
    return figures | (json.loads(lines[-1]) if lines else {})


if __name__ == "__main__":
    main()
