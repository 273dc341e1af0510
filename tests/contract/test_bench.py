"""Every script in bench/ starts, at toy size, on data made up for it; what of ours it imports is there."""

from __future__ import annotations

import ast
import csv
import gzip
import importlib
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "bench"
WORDS = (
    "a river carries small stones from the hills to the sea while boats wait for wind near an old harbour".split()  # noqa: SIM905
)

SMALL = ["--samples=8", "--layers=1", "--width=64", "--context=128", "--vocabulary=400", "--micro-batch=2"]
FEW = "--seeds=1 --rates=1e-3 --steps=140 --layers=1 --width=16 --poisons=random --at=125".split()  # noqa: SIM905
TOY: dict[str, list[list[str]]] = {
    "dataprep_corpus.py": [["--megabytes", "1", "--workers", "1"]],
    "align/bench.py": [
        [method, "--data", f"{{data}}/{file}", *SMALL]
        for method, file in (("sft", "gsm8k/train.jsonl"), ("dpo", "pairs.jsonl.gz"))
    ],
    "align/real_data.py": [
        [
            "--dialogues={data}/pairs.jsonl.gz",
            "--problems={data}/gsm8k/train.jsonl",
            "--toy",
            "--store={data}/models",
            f"--show={show}",
        ]
        for show in ("sft", "dpo", "reward")
    ],
    "checkpoint/bench.py": [["--layers", "1", "--width", "64", "--times", "1"]],
    "cli/bench.py": [["--times", "1"]],
    "compile/bench.py": [["--layers", "1", "--width", "12", "--context", "8"]],
    "dataprep/builtin_toxicity.py": [["{data}"], ["{data}", "about"]],
    "dataprep/clustering.py": [["--documents", "200000", "--folder", "{tmp}"]],
    "dataprep/dedup.py": [["{data}/texts.jsonl", "--megabytes", "1"]],
    "dataprep/encoding.py": [["{data}/texts.jsonl", "--megabytes", "1", "--splitting", s] for s in ("gpt2", "llama3")],
    "dataprep/end_to_end.py": [["{data}/texts.jsonl", "--megabytes", "1"]],
    "dataprep/memory.py": [["--times", "0.02", "--workers", "1"]],
    "dataprep/minhash.py": [["--megabytes", "1"]],
    "dataprep/real_text.py": [["{tmp}/texts.jsonl", "--megabytes", "1"]],
    "dataprep/rules.py": [["{data}/texts.jsonl", "--megabytes", "1", "--check", "1"]],
    "dataprep/start_up.py": [["--megabytes", "0.1", "--workers", "0"]],
    "dataprep/toxicity.py": [["{data}"]],
    "faults/bench.py": [["--kills", "1", "--nodes", "2"]],
    "faults/elastic.py": [["--faults", "1"]],
    "faults/stragglers.py": [["--runs", "1", "--times", "1", "--cost-steps", "80"]],
    "families/bench.py": [["--families", "qwen3", "--steps", "1"]],
    "healing/bench.py": [["--text={data}/tinyshakespeare/input.txt", *FEW]],
    "languages/bench.py": [["--documents", "3"]],
    "lora/bench.py": [["sft", "--data", "{data}/gsm8k/train.jsonl", *SMALL]],
    "operator/bench.py": [["--runs", "5"]],
    "pipeline/bench.py": [["--toy", "--steps", "2", "--micro-batches", "2", "4"]],
    "plan/bench.py": [["--only", "packed"]],
    "policy/bench.py": [["--seeds", "1", "--steps", "2"]],
    "setup/bench.py": [["--help"]],  # its toy size would be another program: it installs everything, from an index
    "shakespeare/recipes.py": [["--text", "{data}/tinyshakespeare/input.txt", "--seeds=1", "--steps=5"]],
    "shakespeare/bench.py": [["--text", "{data}/tinyshakespeare/input.txt", "--seeds", "1", "--steps", "40"]],
}
"""The arguments of each script's run, or of its runs; {data} has `made_up` data, {tmp} is an empty folder."""

ELSEWHERE = {
    "common.py": "is imported by the others",
    "random_models.py": "is imported by the others",
    "families/random_families.py": "is imported by families/bench.py and by tests",
    "faults/watched_in_turn.py": "is imported by the launchers of faults/stragglers.py",
    "policy/even.py": "is imported by policy/bench.py",
    "gpu/bench.py": "tests/unit/trainer/test_gpu_bench.py",
    "dataprep/kills.py": "tests/unit/dataprep/test_process.py",
}
"""Scripts that are run by another test, or by another script."""

PEERS = {
    "align/trl_side.py": "trl",
    "align/trl_values.py": "trl",
    "dataprep/peers/datatrove_dedup.py": "datatrove",
    "dataprep/peers/datatrove_pipeline.py": "datatrove",
    "dataprep/peers/datatrove_rules.py": "datatrove",
    "languages/datatrove_side.py": "datatrove",
    "mutation/bench.py": "cosmic-ray",
    "shakespeare/nanogpt.py": "a checkout of nanoGPT",
}
"""What needs something that Kindling's environment has not, most of it the peers' sides."""

SCRIPTS = sorted(str(path.relative_to(BENCH)) for path in BENCH.rglob("*.py"))


def test_every_script_is_in_one_of_the_tables() -> None:
    assert sorted([*TOY, *ELSEWHERE, *PEERS]) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_imports_of_ours_is_there(script: str) -> None:
    missing = [name for name in imported(BENCH / script) if not exists(name)]
    assert missing == []


@pytest.mark.parametrize("script", [script for script in TOY if script not in ("align/trl_values.py",)])
def test_every_script_says_how_it_is_run(script: str) -> None:
    assert f"python bench/{script}" in (ast.get_docstring(ast.parse((BENCH / script).read_text())) or "")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("script", "arguments"), [(script, arguments) for script, runs in TOY.items() for arguments in runs]
)
def test_every_script_runs_at_toy_size(
    script: str, arguments: list[str], data: Path, tmp_path: Path, missing_server: str | None
) -> None:
    if script == "operator/bench.py" and missing_server:
        pytest.skip(missing_server)
    filled = [argument.format(data=data, tmp=tmp_path) for argument in arguments]
    command = [sys.executable, str(BENCH / script), *filled]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    assert done.stdout.strip()


@pytest.fixture(scope="session")
def missing_server() -> str | None:
    """Why there is no API server on this machine."""
    from kubenode.api_server import ApiServer

    return ApiServer.missing()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up data under the names of the real ones."""
    folder, chance = tmp_path_factory.mktemp("bench-data"), random.Random(0)
    for name in ("gsm8k", "toxicity", "tinyshakespeare"):
        (folder / name).mkdir()

    def sentence(count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count)).capitalize() + "."

    def text(sentences: int) -> str:
        return "\n".join(sentence(chance.randint(6, 14)) for _ in range(sentences))

    problems = [{"question": sentence(8), "answer": f"{sentence(6)}\n#### {number}"} for number in range(40)]
    (folder / "gsm8k" / "train.jsonl").write_text(lines(problems))
    texts = [{"text": text(chance.randint(40, 80)), "id": str(number)} for number in range(600)]
    (folder / "texts.jsonl").write_text(lines(texts))
    plays = "\n\n".join(f"FIRST CITIZEN:\n{text(3)}\n\nROMEO:\n{text(1)}" for _ in range(200))
    (folder / "tinyshakespeare" / "input.txt").write_text(plays)
    with gzip.open(folder / "pairs.jsonl.gz", "wt") as file:
        asked = [f"\n\nHuman: {sentence(6)}\n\nAssistant:" for _ in range(60)]
        file.write(lines([{"chosen": f"{each} {sentence(5)}", "rejected": f"{each} {sentence(7)}"} for each in asked]))
    with open(folder / "toxicity" / "train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["count", "neither", "class", "tweet"])
        for number in range(400):
            toxic = number % 2
            writer.writerow([3, 0 if toxic else 3, 0 if toxic else 2, ("you idiot " if toxic else "") + sentence(6)])
    return folder


def lines(records: list[dict[str, str]]) -> str:
    """The records as JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def imported(path: Path) -> Iterator[str]:
    """The dotted names that a script takes from Kindling's packages."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kindling_"):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("kindling_"))


def exists(name: str) -> bool:
    """Whether a module, or a name of a module, can be imported."""
    module, _, attribute = name.rpartition(".")
    return hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name) is not None
