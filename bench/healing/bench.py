"""What `training.instability` finds in runs of TinyShakespeare that are healthy, and in runs with planted documents.

    python bench/healing/bench.py --text input.txt [--seeds 5] [--rates 3e-4 1e-3 3e-3 1e-2] [--steps 600] [--json FILE]

The text is cut into its lines, each a document, and small models are trained on it: first healthy ones, one of each
seed and learning rate. Of each the most deviations is told that a step's loss, or the logarithm of its gradient's norm,
was above the median of the `window` steps before it, and whether it was left out, which is a false alarm.

Then, for each kind of poison, the lines that lie in the windows of a step are replaced, each by as many characters: of
a whole batch, or of one of its twelve windows. The run is trained again with the poison in it, and told are the steps
from the poison to its finding, which of the documents left out are planted, the validation loss beside the healthy
run's, and whether a run that is given the windows as `training.skip` becomes the same model, byte for byte.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

from kindling_trainer.loop.instability import deviations

SEQUENCES, CONTEXT = 12, 64
WARM_UP = 0.05
ALPHABET = "αβγδεζηθικλμνξοπρστυφχψω"
POISONS: dict[str, Callable[[random.Random, str], str]] = {
    "reversed": lambda chance, line: line[::-1],
    "random": lambda chance, line: "".join(chance.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ&$3!?;:-'", k=len(line))),
    "repeated": lambda chance, line: "Z" * len(line),
    "alphabet": lambda chance, line: "".join(chance.choices(ALPHABET, k=len(line))),
}
"""From a line to what stands in its place."""


def main() -> None:
    arguments = parse_arguments()
    documents = lines_of(arguments.text.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(Path(scratch), arguments)
        clean = bench.clean(documents)
        planted = [
            bench.planted(documents, kind, whole, step)
            for kind in arguments.poisons
            for whole in (True, False)
            for step in arguments.at
        ]
    alarms = sum(row["leftOut"] for row in clean)
    print(f"\n{len(clean)} healthy runs of {arguments.steps} steps: {alarms} steps left out")
    whole = [row for row in planted if row["windows"] == SEQUENCES]
    print(f"{sum(row['found'] for row in whole)} of {len(whole)} whole batches of poison found")
    write_figures(arguments.json, {"clean": clean, "planted": planted})


def parse_arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--text", type=Path, required=True, help="TinyShakespeare's input.txt")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", type=float, nargs="+", default=[3e-4, 1e-3, 3e-3, 1e-2])
    parser.add_argument("--poisons", nargs="*", choices=POISONS, default=list(POISONS))
    parser.add_argument("--at", type=int, nargs="+", default=[700], help="the steps that read the poison")
    parser.add_argument("--window", type=int, default=100)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--curves", type=Path, help="the folder to keep the healthy runs' metrics.jsonl in")
    return parser.parse_args()


def lines_of(text: str) -> list[dict[str, str]]:
    """The documents: each line that is not empty, by its number among these, from 1."""
    lines = filter(None, map(str.strip, text.splitlines()))
    return [{"id": str(number), "text": line} for number, line in enumerate(lines, start=1)]


class Bench:
    """Runs in a folder."""

    def __init__(self, folder: Path, arguments: argparse.Namespace) -> None:
        self._folder, self._arguments = folder, arguments
        self._store = folder / "store"

    def clean(self, documents: list[dict[str, str]]) -> list[dict[str, Any]]:
        """A row for each healthy run."""
        arguments = self._arguments
        runs = {healthy(seed, rate): (seed, rate) for rate in arguments.rates for seed in range(arguments.seeds)}
        self._train("clean", documents, {name: self._recipe(*given) for name, given in runs.items()})
        print(f"{'seed':>5} {'rate':>6} {'loss':>7} {'deviations: loss':>17} {'norm':>6} {'left out':>9}")
        rows = []
        for name, (seed, rate) in runs.items():
            folder = self._product(name)
            curve = rows_of(folder / "metrics.jsonl")
            if arguments.curves is not None:
                arguments.curves.mkdir(parents=True, exist_ok=True)
                (arguments.curves / f"{name}.jsonl").write_bytes((folder / "metrics.jsonl").read_bytes())
            loss, norm = most_deviations(curve, round(WARM_UP * arguments.steps), arguments.window)
            row = {
                "seed": seed, "rate": rate, "validationLoss": manifest_of(folder)["validationLoss"],
                "lossDeviations": loss, "normDeviations": norm, "leftOut": sum("skipped" in row for row in curve),
            }  # fmt: skip
            rows.append(row)
            print(
                f"{seed:5} {rate:6g} {row['validationLoss']:7.4f} {loss:17.2f} {norm:6.2f} {row['leftOut']:9}",
                flush=True,
            )
        return rows

    def planted(self, documents: list[dict[str, str]], kind: str, whole: bool, step: int) -> dict[str, Any]:
        """The row of a run with poison in what a step reads: in its whole batch, or in one of its windows."""
        seed, rate = 0, self._arguments.rates[min(1, len(self._arguments.rates) - 1)]
        healthy_run = healthy(seed, rate)
        planted = self._within(healthy_run, step, documents, SEQUENCES if whole else 1)
        chance = random.Random(step)
        poisoned = [
            one | {"text": POISONS[kind](chance, one["text"])} if one["id"] in planted else one for one in documents
        ]
        name = f"{kind}-{'batch' if whole else 'window'}-{step}"
        self._train(name, poisoned, {name: self._recipe(seed, rate)})
        folder = self._product(name)
        skipped = manifest_of(folder).get("skipped", [])
        found = [one for one in skipped if 0 <= one["step"] - step <= 20]
        named = {id for one in found for id in self._left_out(name, one["step"])}
        losses = [manifest_of(one)["validationLoss"] for one in (folder, self._product(healthy_run))]
        row = {
            "poison": kind, "windows": SEQUENCES if whole else 1, "step": step, "found": bool(found),
            "after": found[0]["step"] - step if found else None, "why": found[0]["why"] if found else None,
            "planted": len(planted), "named": len(named & planted), "others": len(skipped) - len(found),
            "deviations": deviations_at(rows_of(folder / "metrics.jsonl"), step, self._arguments.window),
            "loss": losses[0] / losses[1] - 1,
            "replay": self._same_again(name, poisoned, seed, rate, skipped) if skipped else None,
        }  # fmt: skip
        print(
            f"{kind:>9} in {row['windows']:2} windows of step {step}: found {row['found']} after {row['after']} steps, "
            f"{row['named']} of {row['planted']} planted documents named, {row['others']} other steps left out, "
            f"loss {row['loss']:+.2%}, replay the same {row['replay']}; "
            f"deviations: loss {row['deviations'][0]:.1f}, norm {row['deviations'][1]:.1f}; {row['why']}",
            flush=True,
        )
        return row

    def _within(self, run: str, step: int, documents: list[dict[str, str]], windows: int) -> set[str]:
        """The lines that lie whole in some of the windows that a step read."""
        whole = {one["id"]: len(one["text"]) for one in documents}  # a token for each character
        inside = [one["id"] for one in self._passages(run, step) if one["tokens"] == whole[one["id"]]]
        return set(inside[: max(1, round(len(inside) * windows / SEQUENCES))])

    def _left_out(self, run: str, step: int) -> set[str]:
        return {one["id"] for one in self._passages(run, step) if one.get("leftOut")}

    def _passages(self, run: str, step: int) -> list[dict[str, Any]]:
        command = ["inspect", run, "--step", str(step), "--json", "--limit", "10000"]
        found = [one | {"id": one["id"].rpartition("#")[2]} for one in json.loads(self._kindling(*command))]
        return sorted(found, key=lambda one: int(one["id"]))

    def _same_again(
        self, name: str, documents: list[dict[str, str]], seed: int, rate: float, skipped: list[dict[str, Any]]
    ) -> bool:
        """Whether a run that is told from the beginning what to leave out becomes the same model."""
        skip = [window for one in skipped for window in one["windows"]]
        self._train(name, documents, {f"{name}-replay": self._recipe(seed, rate, skip=skip)})
        weights = [self._product(run) / "model" / "model.safetensors" for run in (name, f"{name}-replay")]
        return weights[0].read_bytes() == weights[1].read_bytes()

    def _recipe(self, seed: int, rate: float, **more: Any) -> dict[str, Any]:
        return {
            "steps": self._arguments.steps,
            "seed": seed,
            "batch": {"tokens": SEQUENCES * CONTEXT},
            "optimizer": {"adamW": {"learningRate": rate, "betas": [0.9, 0.99]}},
            "schedule": {"cosine": {"warmupFraction": WARM_UP}},
            "compile": "never",
            **more,
        }

    def _train(self, dataset: str, documents: list[dict[str, str]], recipes: Mapping[str, dict[str, Any]]) -> None:
        """Train on these documents, one run after another."""
        folder = self._folder / dataset
        folder.mkdir(exist_ok=True)
        (folder / "text.jsonl").write_text("".join(json.dumps(one) + "\n" for one in documents))
        sizes = {"architecture": "gpt2", "layers": self._arguments.layers, "heads": 4, "width": self._arguments.width}
        specs: list[tuple[str, str, dict[str, Any]]] = [
            (
                "DatasetBuild",
                dataset,
                {
                    "sources": [{"uri": "text.jsonl"}],
                    "filters": [],
                    "deduplicate": {"exact": False},
                    "tokenizer": {"char": {}},
                    "validation": {"tail": 0.1},
                },
            ),
            *(
                (
                    "PretrainRun",
                    name,
                    {
                        "dataset": {"name": dataset},
                        "model": {**sizes, "context": CONTEXT},
                        "training": recipe,
                        "checkpoint": {"every": 200},
                        "resources": {"cpu": "1"},
                    },
                )
                for name, recipe in recipes.items()
            ),
        ]
        path = folder / "runs.yaml"
        path.write_text(yaml.safe_dump_all(document(*spec) for spec in specs))
        self._kindling("run", str(path))

    def _kindling(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "kindling_cli.main", *arguments, "--store", str(self._store)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        return done.stdout

    def _product(self, name: str) -> Path:
        named = json.loads((self._store / "names" / "PretrainRun" / "default" / f"{name}.json").read_text())
        return Path(named["uri"].removeprefix("file://"))


def healthy(seed: int, rate: float) -> str:
    """The name of a run."""
    return f"clean-{seed}-{rate * 1e6:.0f}"


def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def most_deviations(curve: Iterable[Mapping[str, Any]], warm_up: int, window: int) -> tuple[float, float]:
    """How far above the steps before it a step was, at most: by its loss, and by the logarithm of its norm."""
    losses, norms = deque[float](maxlen=window), deque[float](maxlen=window)
    most_loss = most_norm = -math.inf
    for row in curve:
        if "loss" not in row or row["step"] <= warm_up:
            continue
        loss, norm = row["loss"], math.log(row["grad_norm"])
        if len(losses) == window:
            most_loss = max(most_loss, deviations("loss", loss, losses))
            most_norm = max(most_norm, deviations("gradient norm", norm, norms))
        losses.append(loss)
        norms.append(norm)
    return most_loss, most_norm


def deviations_at(curve: list[dict[str, Any]], step: int, window: int) -> tuple[float, float]:
    """How far above the steps before it a step was, as it was to be taken first: by its loss, and by its norm."""
    before = [(row["loss"], math.log(row["grad_norm"])) for row in curve if "loss" in row and row["step"] < step]
    losses, norms = zip(*before[-window:], strict=True)
    loss, norm = next(
        (row.get("skipped_loss", row.get("loss")), row.get("skipped_grad_norm", row.get("grad_norm")))
        for row in curve
        if row["step"] == step and ("loss" in row or "skipped" in row)
    )
    return deviations("loss", loss, losses), deviations("gradient norm", math.log(norm), norms)


if __name__ == "__main__":
    main()
