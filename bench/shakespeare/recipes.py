"""Optimizers and schedules on examples/02-tinyshakespeare: validation loss after the same steps from the same seeds.

    python bench/shakespeare/recipes.py --text input.txt [--seeds 3] [--steps 300] [--rates 1e-3] [--json FILE]

Each of AdamW and Muon, under a cosine and under warm-up-stable-decay, takes the example's model and batches from each
seed, at each peak of the learning rate; all else is the example's. The loss is that of the finished model over the
whole validation tail. All runs are taken in this process, one after another.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, pretrain_file, write_figures

from kindling_api.base import canonical_json, key_of
from kindling_api.v1alpha1.products import model_folder
from kindling_trainer import train

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "02-tinyshakespeare" / "shakespeare.yaml"
OPTIMIZERS = {"AdamW": "adamW", "Muon": "muon"}
COMMON = {"betas": [0.9, 0.99], "weightDecay": 0.1}
SCHEDULES = {
    "cosine": {"cosine": {"warmupFraction": 0.05, "finalFraction": 0.1}},
    "WSD": {"wsd": {"warmupFraction": 0.05, "decayFraction": 0.2}},
}


def main() -> None:
    arguments = parse_arguments()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        dataset = build_dataset(arguments.text, Path(scratch))
        for number, rate, optimizer, schedule in product(
            range(arguments.seeds), arguments.rates, OPTIMIZERS, SCHEDULES
        ):
            row = {"optimizer": optimizer, "schedule": schedule, "rate": rate, "seed": 1337 + number}
            row |= run(arguments, row, dataset, Path(scratch))
            rows.append(row)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    summary = [summarise(rows, *case) for case in product(arguments.rates, OPTIMIZERS, SCHEDULES)]
    print(f"\n{'':>24}  {'mean loss':>9}  {'range':>17}  {'ms/step':>8}")
    for each in summary:
        case = f"{each['optimizer']}, {each['schedule']}, {each['rate']:g}"
        spread = f"{each['lowest']:.4f} … {each['highest']:.4f}"
        print(f"{case:>24}  {each['loss']:9.4f}  {spread:>17}  {each['millisecondsPerStep']:8.1f}")
    write_figures(arguments.json, {"steps": arguments.steps, "rows": rows, "summary": summary})


def parse_arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--text", type=Path, required=True, help="TinyShakespeare's input.txt")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3], help="peaks of the learning rate")
    return parser.parse_args()


def build_dataset(text: Path, scratch: Path) -> str:
    """Build the example's dataset; its URI."""
    build, _ = yaml.safe_load_all(EXAMPLE.read_text("utf-8"))
    build["spec"]["sources"] = [{"uri": str(text.resolve())}]
    file = scratch / "build.yaml"
    file.write_text(yaml.safe_dump(build), "utf-8")
    command = [sys.executable, "-m", "kindling_cli.main", "run", str(file), "--store", str(scratch / "store")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(json.loads(next((scratch / "store" / "names").rglob("shakespeare.json")).read_text())["uri"])


def run(arguments: argparse.Namespace, row: dict[str, Any], dataset: str, scratch: Path) -> dict[str, float]:
    """Train the example once under a recipe; loss of its last evaluation, and its speed."""
    _, pretraining = yaml.safe_load_all(EXAMPLE.read_text("utf-8"))
    spec = pretraining["spec"] | {"dataset": {"uri": dataset}, "evaluation": {"every": arguments.steps}}
    spec["training"] |= {"steps": arguments.steps, "seed": row["seed"], "schedule": SCHEDULES[row["schedule"]]}
    spec["training"]["optimizer"] = {OPTIMIZERS[row["optimizer"]]: COMMON | {"learningRate": row["rate"]}}
    key = key_of(row)
    run = pretrain_file("recipe", spec, scratch / "store", key)
    file = scratch / "recipe.json"
    file.write_bytes(canonical_json(run.document()))
    assert train.main([str(file)]) == 0
    folder = scratch / "store" / model_folder(key)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "loss": json.loads((folder / "manifest.json").read_text())["validationLoss"],
        "millisecondsPerStep": 1000 * statistics.median(line["step_seconds"] for line in metrics if "loss" in line),
    }


def summarise(rows: list[dict[str, Any]], rate: float, optimizer: str, schedule: str) -> dict[str, Any]:
    case = {"rate": rate, "optimizer": optimizer, "schedule": schedule}
    mine = [row for row in rows if row | case == row]
    losses = [row["loss"] for row in mine]
    return case | {
        "loss": statistics.mean(losses),
        "lowest": min(losses),
        "highest": max(losses),
        "millisecondsPerStep": statistics.median(row["millisecondsPerStep"] for row in mine),
    }


if __name__ == "__main__":
    main()
