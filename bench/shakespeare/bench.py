"""The recipe of examples/02-tinyshakespeare, and nanoGPT's own run of it beside ours on the same machine.

    python bench/shakespeare/bench.py --text input.txt [--nanogpt CHECKOUT] [--seeds 3] [--steps 2000] [--json FILE]

nanoGPT (https://github.com/karpathy/nanoGPT) needs nothing that Kindling does not. First our model gets the weights
that one of nanoGPT's begins with, and has to find the same loss. Then both sides train 2,000 steps from each seed, each
from weights of its own, taking turns, so that a slow minute of the machine hits both. Each model is then measured the
same way: mean loss over the whole validation tail (the last 10 % of the text), cut into windows of 64 tokens that do
not overlap, every token predicted once. Speed is the median over the steps after the first twentieth.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "examples" / "02-tinyshakespeare"
TOKENS_PER_STEP = 12 * 64
WARM_UP = 20
"""One of so many steps does not count for speed."""


def main() -> None:
    arguments = parse_arguments()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(arguments.seeds):
            seed = 1337 + number
            rows.append({"side": "kindling", "seed": seed, **run_kindling(arguments, seed, Path(scratch))})
            if arguments.nanogpt:
                rows.append({"side": "nanoGPT", "seed": seed, **run_nanogpt(arguments, seed, Path(scratch))})
            print_row(rows[-2] if arguments.nanogpt else rows[-1])
            if arguments.nanogpt:
                print_row(rows[-1])
    summary = {side: summarise(rows, side) for side in dict.fromkeys(row["side"] for row in rows)}
    print_summary(summary)
    write_figures(arguments.json, {"rows": rows, "summary": summary})


def parse_arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--text", type=Path, required=True, help="TinyShakespeare's input.txt")
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT, to run beside ours")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2000)
    return parser.parse_args()


def run_kindling(arguments: argparse.Namespace, seed: int, scratch: Path) -> dict[str, float]:
    """Train the example once; loss of its last evaluation, and its speed."""
    store = scratch / "store"
    command = [sys.executable, "-m", "kindling_cli.main", "run", str(EXAMPLE), "--store", str(store)]
    command += ["--set", f"DatasetBuild/shakespeare:spec.sources[0].uri={arguments.text.resolve()}"]
    command += ["--set", f"PretrainRun/shakespeare:spec.training.seed={seed}"]
    command += ["--set", f"PretrainRun/shakespeare:spec.training.steps={arguments.steps}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    name = json.loads((store / "names" / "PretrainRun" / "default" / "shakespeare.json").read_text())
    folder = Path(name["uri"].removeprefix("file://"))
    loss = json.loads((folder / "manifest.json").read_text())["validationLoss"]
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "loss": loss,
        "millisecondsPerStep": 1000 * steady(row["step_seconds"] for row in steps_of(metrics, arguments.steps)),
    }


def steps_of(metrics: list[dict[str, Any]], steps: int) -> list[dict[str, Any]]:
    return [row for row in metrics if row.get("step_seconds") and row["step"] > steps // WARM_UP]


def run_nanogpt(arguments: argparse.Namespace, seed: int, scratch: Path) -> dict[str, float]:
    """Run nanoGPT's train.py with the flags of its README, then measure its checkpoint as ours is measured."""
    folder = scratch / f"nanogpt-{seed}"
    command = [sys.executable, str(HERE / "nanogpt.py"), str(arguments.nanogpt), str(arguments.text), str(folder)]
    output = subprocess.run(
        [*command, str(seed), str(arguments.steps)], check=True, capture_output=True, text=True
    ).stdout
    figures: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {"loss": figures["loss"], "millisecondsPerStep": 1000 * steady(figures["stepSeconds"])}


def steady(seconds: Any) -> float:
    return statistics.median(seconds)


def summarise(rows: list[dict[str, Any]], side: str) -> dict[str, float]:
    mine = [row for row in rows if row["side"] == side]
    milliseconds = statistics.median(row["millisecondsPerStep"] for row in mine)
    return {
        "loss": statistics.mean(row["loss"] for row in mine),
        "lowest": min(row["loss"] for row in mine),
        "highest": max(row["loss"] for row in mine),
        "millisecondsPerStep": milliseconds,
        "tokensPerSecond": TOKENS_PER_STEP / milliseconds * 1000,
    }


def print_row(row: dict[str, Any]) -> None:
    print(
        f"{row['side']:>9}  seed {row['seed']}  loss {row['loss']:.4f}  {row['millisecondsPerStep']:.1f} ms/step",
        flush=True,
    )


def print_summary(summary: dict[str, dict[str, float]]) -> None:
    print(f"\n{'':>9}  {'mean loss':>9}  {'range':>17}  {'ms/step':>8}  {'tokens/s':>9}")
    for side, figures in summary.items():
        spread = f"{figures['lowest']:.4f} … {figures['highest']:.4f}"
        print(
            f"{side:>9}  {figures['loss']:9.4f}  {spread:>17}  {figures['millisecondsPerStep']:8.1f}"
            f"  {figures['tokensPerSecond']:9,.0f}"
        )
    if len(summary) == 2:
        ours, theirs = summary["kindling"], summary["nanoGPT"]
        speed = ours["tokensPerSecond"] / theirs["tokensPerSecond"]
        print(f"\nloss {ours['loss'] - theirs['loss']:+.4f}, speed {speed:.2f} ×")


if __name__ == "__main__":
    main()
