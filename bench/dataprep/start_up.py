"""What a small build costs, and how much of that is start-up: processor time of all its processes.

    python bench/dataprep/start_up.py [--megabytes 0.1 15] [--workers 0 2] [--peer PYTHON] [--json OUT]

The text is Python's own standard library, over and over with other names in it, so that nothing is a duplicate; the
steps are those of a document that says nothing but its source, with the tokenizer of bytes. Workers are those of
`spec.engine`: 0 leaves it to the build, 2 starts Ray. PYTHON is an interpreter with datatrove[io,processing], spacy,
orjson and tokenizers (see `end_to_end.py`), which then does its own steps on the same text.
"""

from __future__ import annotations

import json
import sys
import sysconfig
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import build_file, measured, options_of, write_figures

from kindling_api.v1alpha1.runfile import Progress
from kindling_dataprep.tokenize import tokenizer

HERE = Path(__file__).parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def main() -> None:
    """Builds each size with each number of workers, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.1, 15])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--peer", help="an interpreter that has datatrove")
    options = parser.parse_args()
    figures: list[dict[str, Any]] = []
    for megabytes in options.megabytes:
        with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
            folder = Path(name)
            write_input(folder, megabytes * 1e6)
            sides = {f"{workers} workers": ours(folder, workers) for workers in options.workers}
            if options.peer:
                peer = [options.peer, HERE / "peers/datatrove_pipeline.py", folder / "in", folder / "tokenizer.json"]
                sides["datatrove"] = measured([*peer, folder / "datatrove"], ENVIRONMENT).cpu_seconds
            for side, seconds in sides.items():
                print(f"{megabytes:>6g} MB  {side:<12}{seconds:6.1f} s of processor time", flush=True)
                figures.append({"megabytes": megabytes, "side": side, "cpuSeconds": round(seconds, 1)})
    write_figures(options.json, {"builds": figures})


def write_input(folder: Path, size: float) -> None:
    """Documents of so many bytes together, and a tokenizer."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    (folder / "in").mkdir()
    with open(folder / "in/texts.jsonl", "w") as out:
        for number in count():
            text = files[number % len(files)].read_text(errors="replace").replace("self", f"object{number}")
            out.write(json.dumps({"text": text, "id": str(number)}) + "\n")
            if out.tell() >= size:
                break
    (folder / "tokenizer.json").write_bytes(tokenizer.of_bytes().to_bytes())


def ours(folder: Path, workers: int) -> float:
    """Processor seconds of a build as `kindling run` starts it."""
    document = {"sources": [{"uri": str(folder / "in")}], "tokenizer": {"byte": {}}, "engine": {"workers": workers}}
    run = build_file(f"bench-{workers}", document, folder / f"store-{workers}")
    (folder / "run.json").write_text(json.dumps(run.document()))
    command = [sys.executable, "-m", "kindling_dataprep", "run.json", "--progress", "progress.json"]
    used = measured(command, ENVIRONMENT, folder)
    word = Progress.model_validate_json((folder / "progress.json").read_bytes())
    assert word.result is not None and word.result.documents.kept, word.message
    return used.cpu_seconds


if __name__ == "__main__":
    main()
