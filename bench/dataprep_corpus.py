"""How fast a build is on real text: documentation, licences and sources that this machine has, 50 MB or more.

    python bench/dataprep_corpus.py [--megabytes 54] [--workers 0] [--store FOLDER] [--json FILE]

The build is the whole one: repair, Gopher's rules, exact and near duplicates, a trained tokenizer, shards, report. It
prints a table and writes the same as JSON. Memory is the largest sum over all processes of the build, sampled twice a
second from /proc; pages that processes share count once for each.
"""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from common import build_file, descendants, options_of, write_figures

from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress

DOCUMENTATION = [
    {"uri": "/usr/share/common-licenses", "format": "text"},
    {"uri": "/usr/share/doc/**/copyright", "format": "text"},
    {"uri": "/usr/share/doc/**/README*", "format": "text"},
    {"uri": "/usr/share/doc/[a-c]*/**/*.gz", "format": "text"},
    {"uri": "/usr/share/man/man1/[a-g]*.gz", "format": "text"},
]


def main() -> None:
    """Assembles the sources, builds, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--megabytes", type=int, default=54, help="how much text, at least, if the machine has it")
    parser.add_argument("--workers", type=int, default=0, help="0: one a core")
    parser.add_argument("--store", type=Path, help="where to keep the dataset; default: a folder that is deleted")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as folder:
        store = (options.store or Path(folder) / "store").absolute()
        figures = measure(run_file(sources(options.megabytes * 1_000_000), options.workers, store), Path(folder))
    print_table(figures)
    write_figures(options.json, figures)


def sources(wanted: int) -> list[dict[str, str]]:
    """Documentation, then the sources of Go and of installed Python packages, folder by folder, until it is enough."""
    packages = sorted(Path(sysconfig.get_path("purelib")).glob("*/"))
    folders = [*(f"{folder}/**/*.go" for folder in sorted(Path("/usr/local/go/src").glob("*/")))]
    folders += [f"{folder}/**/*.py" for folder in packages]
    chosen, total = list[dict[str, str]](), 0
    for source in [*DOCUMENTATION, *({"uri": uri, "format": "code"} for uri in folders)]:
        if total >= wanted:
            break
        size = size_of(source["uri"])
        if 0 < size < 1.2 * wanted - total:
            chosen.append(source)
            total += size
    return chosen[:256]


def size_of(uri: str) -> int:
    """Bytes of the files that a folder or a glob names."""
    pattern = uri if "*" in uri else f"{uri}/**/*"
    return sum(os.path.getsize(path) for path in glob.glob(pattern, recursive=True) if os.path.isfile(path))


def run_file(listed: list[dict[str, str]], workers: int, store: Path) -> DatasetBuildFile:
    """The run file of the whole build."""
    document = {
        "sources": listed,
        "filters": [{"formatting": {}}, {"gopherQuality": {}}, {"gopherRepetition": {}}],
        "tokenizer": {"train": {"vocabSize": 32_000}},
        "engine": {"workers": workers},
    }
    return build_file("corpus", document, store)


def measure(run: DatasetBuildFile, folder: Path) -> dict[str, Any]:
    """Runs the build as `kindling run` does."""
    (folder / "run.json").write_text(json.dumps(run.document()))
    command = [
        sys.executable,
        "-m",
        "kindling_dataprep",
        str(folder / "run.json"),
        "--progress",
        str(folder / "p.json"),
    ]
    started = time.monotonic()
    process = subprocess.Popen(command)
    peak, stages = 0, dict[str, float]()
    while process.poll() is None:
        peak = max(peak, resident_bytes(process.pid))
        if (folder / "p.json").exists():
            progress = Progress.model_validate_json((folder / "p.json").read_bytes())
            if progress.dataset is not None:
                stages.setdefault(progress.dataset.stage, round(time.monotonic() - started, 1))
        time.sleep(0.5)
    seconds = time.monotonic() - started
    word = Progress.model_validate_json((folder / "p.json").read_bytes())
    if word.result is None:
        sys.exit(word.message)
    return figures(run, word, seconds, peak, stages)


def figures(
    run: DatasetBuildFile, word: Progress, seconds: float, peak: int, stages: dict[str, float]
) -> dict[str, Any]:
    """What is worth knowing, JSON-ready."""
    result = word.result
    inputs = (Path(result.uri.removeprefix("file://")) / "inputs.jsonl").read_text().splitlines()
    size = sum(json.loads(line)["size"] for line in inputs)
    return {
        "files": len(inputs),
        "inputMegabytes": round(size / 1e6, 1),
        "seconds": round(seconds, 1),
        "megabytesPerSecond": round(size / 1e6 / seconds, 2),
        "documentsPerSecond": round(result.documents.read / seconds, 1),
        "workers": run.spec.engine.workers or len(os.sched_getaffinity(0)),
        "peakMegabytes": round(peak / 1e6),
        "read": result.documents.read,
        "kept": result.documents.kept,
        "removed": result.documents.removed,
        "tokens": result.tokens,
        "stageBeganAtSecond": stages,
        "digest": result.digest,
    }


def resident_bytes(pid: int) -> int:
    """Of a process and its descendants."""
    pages = 0
    for number in descendants(pid):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            pages += int(Path(f"/proc/{number}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def print_table(figures: dict[str, Any]) -> None:
    """The figures, one a line."""
    for name, value in figures.items():
        if isinstance(value, dict):
            print(name)
            for key, number in value.items():
                print(f"  {key:<24}{number:>14,}")
        else:
            print(f"{name:<26}{value:>14,}" if not isinstance(value, str) else f"{name:<26}{value}")


if __name__ == "__main__":
    main()
