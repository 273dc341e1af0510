"""What `kindling plan` estimates, beside what happens: tokens, time and memory of ten documents.

    python bench/plan/bench.py [--only NAME …] [--json FILE]

Seven datasets are built and three models trained from texts that are found on the machine: Python's standard library
and the licences under /usr/share/doc. Each document is planned with nothing made, then run by `kindling run`, after
what it needs. Tokens are those of the training part, and of all steps of a run; time is by the clock, from the
command's start to its end; memory is the resident size of the largest process.

Estimates are good where tokens are within 10 %, time within a factor of 2, and memory within 15 %.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import descendants, options_of, write_figures

KINDLING = [sys.executable, "-m", "kindling_cli.main"]
ROW = "{:<12}{:>12}{:>12}{:>8}{:>9}{:>9}{:>8}{:>9}{:>9}{:>8}"

DATASETS: dict[str, dict[str, Any]] = {
    "defaults": {"sources": [{"uri": "texts"}]},
    "bytes": {"sources": [{"uri": "texts"}], "tokenizer": {"byte": {}}},
    "characters": {"sources": [{"uri": "texts"}], "tokenizer": {"char": {}}, "validation": {"tail": 0.1}},
    "rules": {
        "sources": [{"uri": "lines/*.jsonl"}],
        "filters": [{"formatting": {}}, {"gopherQuality": {}}, {"gopherRepetition": {}}],
        "tokenizer": {"train": {"vocabSize": 2000}},
    },
    "weights": {
        "sources": [{"uri": "texts", "weight": 3.0}, {"uri": "code"}],
        "tokenizer": {"train": {"vocabSize": 1000}},
    },
    "packed": {"sources": [{"uri": "packed/*.jsonl.gz"}], "tokenizer": {"byte": {}}},
    "library": {"sources": [{"uri": "builtin:python-stdlib"}], "tokenizer": {"train": {"vocabSize": 4000}}},
}
SMALL = {"architecture": "llama", "layers": 4, "heads": 4, "width": 256, "context": 256}
WIDE = {"architecture": "gpt2", "layers": 2, "heads": 8, "width": 512, "context": 128}
RECIPE = {"compile": "never", "precision": "fp32"}
ONE_PASS = {"every": 1000}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": (
        "PretrainRun",
        {"dataset": {"name": "bytes"}, "model": SMALL, "training": RECIPE | {"epochs": 0.2}, "evaluation": ONE_PASS},
    ),
    "gpt2": (
        "PretrainRun",
        {"dataset": {"name": "rules"}, "model": WIDE, "training": RECIPE | {"tokens": "60Ki"}, "evaluation": ONE_PASS},
    ),
    "dialogues": (
        "AlignmentRun",
        {"base": {"name": "gpt2"}, "method": {"sft": {}}, "data": [{"uri": "chat.jsonl"}], "training": RECIPE},
    ),
}
NEEDS = {"llama": ["bytes"], "gpt2": ["rules"], "dialogues": ["rules", "gpt2"]}


@dataclass
class Figures:
    """Of one document."""

    name: str
    tokens: tuple[float, float]
    """Planned, and what happened; so are the others."""
    seconds: tuple[float, float]
    mebibytes: tuple[float, float] | None


def main() -> None:
    """Plans and runs each document, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--only", nargs="+", default=[*DATASETS, *RUNS])
    options = parser.parse_args()
    print(ROW.format("", "tokens", "planned", "", "seconds", "planned", "", "MiB", "planned", ""))
    found = []
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
        folder = Path(name)
        write_texts(folder)
        for name in options.only:
            found.append(figures := of(name, folder))
            memory = figures.mebibytes or (0, 0)
            cells = [cell for pair in (figures.tokens, figures.seconds, memory) for cell in _cells(*pair)]
            print(ROW.format(name, *cells), flush=True)
    write_figures(options.json, {"documents": [asdict(each) for each in found]})


def of(name: str, folder: Path) -> Figures:
    """The figures of one document; what it needs is made between the plan and the run."""
    file = folder / f"{name}.yaml"
    file.write_text("\n---\n".join(json.dumps(_document(each)) for each in [*NEEDS.get(name, []), name]))
    command = [str(file), "--store", str(folder / "store")]
    planned = [*KINDLING, "plan", str(file), "--store", str(folder / "empty"), "--json"]
    plan = json.loads(subprocess.run(planned, **_SAID, check=True).stdout)[-1]
    for needed in NEEDS.get(name, []):
        resident([*KINDLING, "run", *command, "--prompt", "", "--only", needed], folder)
    seconds, peak = resident([*KINDLING, "run", *command, "--prompt", "", "--only", name], folder)
    shown = subprocess.run([*KINDLING, "inspect", name, "--json", *command[1:]], **_SAID, check=True).stdout
    made = json.loads(shown)
    if name in DATASETS:
        tokens = sum(shard["tokens"] for shard in made["train"])
        return Figures(name, (plan["tokens"], tokens), (plan["seconds"], seconds), None)
    memory = (sum(plan["memory"].values()) / 2**20, peak)
    return Figures(name, (plan["tokens"], made["tokens"]), (plan["seconds"], seconds), memory)


def resident(command: list[str], folder: Path) -> tuple[float, float]:
    """The seconds that a command takes, and the peak in MiB of the largest of its processes."""
    peak, began = 0, time.monotonic()
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, *map(_peak, descendants(process.pid)))
            time.sleep(0.1)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed")
    return time.monotonic() - began, peak / 1024


def write_texts(folder: Path) -> None:
    """Plain texts, code, JSON lines, packed ones, and dialogues."""
    licences = sorted(Path("/usr/share/doc").glob("*/copyright"))[:150]
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    for name in ("texts", "code", "lines", "packed"):
        (folder / name).mkdir()
    for number, path in enumerate(licences):
        (folder / f"texts/{number}.txt").write_text(path.read_text(errors="replace"))
    for path in modules[:40]:
        (folder / f"code/{path.name}").write_bytes(path.read_bytes())
    lines = "".join(json.dumps({"text": text}) + "\n" for text in _paragraphs(modules, licences))
    (folder / "lines/all.jsonl").write_text(lines)
    (folder / "packed/all.jsonl").write_text(lines)
    subprocess.run(["gzip", str(folder / "packed/all.jsonl")], check=True)
    with open(folder / "chat.jsonl", "w") as file:
        for path in modules[:60]:
            said = {"user": f"What is {path.stem}?", "assistant": f"{path.stem} is a module of Python's own library."}
            messages = [{"role": role, "content": content} for role, content in said.items()]
            file.write(json.dumps({"messages": messages}) + "\n")


def _paragraphs(modules: list[Path], licences: list[Path]) -> Iterator[str]:
    for path in [*modules, *licences]:
        yield from (part for part in path.read_text(errors="replace").split("\n\n\n") if len(part) > 200)


def _document(name: str) -> dict[str, Any]:
    kind, spec = ("DatasetBuild", DATASETS[name]) if name in DATASETS else RUNS[name]
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _cells(planned: float, happened: float) -> list[str]:
    return [f"{happened:,.0f}", f"{planned:,.0f}", f"{planned / happened:.2f}×"] if happened else ["", "", ""]


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has just ended
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)


_SAID: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "env": os.environ | {"COLUMNS": "200"}}


if __name__ == "__main__":
    main()
