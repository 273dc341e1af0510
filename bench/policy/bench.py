"""How soon GRPO and PPO teach a model of a million parameters a rule that only the reward knows.

    python bench/policy/bench.py [--algorithms grpo ppo] [--seeds 3] [--minutes 3] [--json FILE]

The base is a random model, fine-tuned for a moment on dialogues whose answers are three random digits: it knows the
form, and nothing of the rule in even.py, which about one in ten of its answers satisfies by chance. The clock runs from
the first step to the first round whose answers are worth 0.9 on average, evaluations on the way included.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures
from random_models import byte_tokenizer, export_random

from kindling_api.v1alpha1.model import ModelShape

HERE = Path(__file__).resolve().parent
ENOUGH = 0.9
METHODS = {
    "grpo": {"groupSize": 8, "rollout": {"prompts": 16, "maxNewTokens": 6}, "klCoefficient": 0.0},
    "ppo": {"epochs": 2, "rollout": {"prompts": 128, "maxNewTokens": 6}, "klCoefficient": 0.002},
}
RECIPE = """\
apiVersion: kindling.dev/v1alpha1
kind: AlignmentRun
metadata: {{name: form}}
spec:
  base: {{uri: {base}}}
  method: {{sft: {{}}}}
  data: [{{uri: dialogues.jsonl}}]
  training: {{steps: 80, seed: {seed}, batch: {{tokens: 1Ki}}, optimizer: {{adamW: {{learningRate: 1e-3}}}}}}
  resources: {{cpu: "2"}}
---
apiVersion: kindling.dev/v1alpha1
kind: AlignmentRun
metadata: {{name: rule}}
spec:
  base: {{name: form, kind: AlignmentRun}}
  method: {method}
  data: [{{uri: prompts.jsonl}}]
  validation: {{fraction: 0}}
  training:
    steps: {steps}
    seed: {seed}
    batch: {{tokens: {tokens}, microBatch: 128}}
    compile: never
    optimizer: {{adamW: {{learningRate: 3e-4, weightDecay: 0.0}}}}
    schedule: {{cosine: {{warmupFraction: 0.05, finalFraction: 0.5}}}}
  resources: {{cpu: "2"}}
"""


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--algorithms", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=3.0, help="what counts as soon")
    arguments = parser.parse_args()
    rows = []
    print(f"{'algorithm':10} {'seed':>5} {'steps':>6} {'seconds':>8} {'first':>6} {'best':>6}")
    for seed in range(1, arguments.seeds + 1):
        for algorithm in arguments.algorithms:
            row = {"algorithm": algorithm, "seed": seed, **learn(algorithm, seed, arguments.steps)}
            rows.append(row)
            reached = (f"{row['steps']:6}", f"{row['seconds']:8.1f}") if row["steps"] else (f"{'-':>6}", f"{'-':>8}")
            print(f"{algorithm:10} {seed:5}", *reached, f"{row['first']:6.3f} {row['best']:6.3f}", flush=True)
    soon = sum(row["steps"] is not None and row["seconds"] <= 60 * arguments.minutes for row in rows)
    print(f"{soon} of {len(rows)} reach {ENOUGH} within {arguments.minutes:g} minutes")
    write_figures(arguments.json, {"rows": rows, "soon": soon})


def learn(algorithm: str, seed: int, steps: int) -> dict[str, Any]:
    """One run: when it was good enough, and its rewards."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, random_ = Path(scratch), random.Random(seed)
        write_base(folder / "base", seed)
        write_lines(folder / "prompts.jsonl", [{"prompt": str(digit)} for digit in range(10)])
        answers = [(digit, "".join(random_.choices("0123456789", k=3))) for digit in range(10) for _ in range(40)]
        write_lines(
            folder / "dialogues.jsonl", [{"prompt": str(digit), "completion": answer} for digit, answer in answers]
        )
        rewards = [{"function": {"importPath": "even:reward"}}]
        method = json.dumps({algorithm: METHODS[algorithm] | {"rewards": rewards}})
        tokens = 128 * 32  # a whole round, as the answers of a round are 128
        recipe = RECIPE.format(base=(folder / "base").as_uri(), seed=seed, method=method, steps=steps, tokens=tokens)
        (folder / "recipe.yaml").write_text(recipe)
        command = [sys.executable, "-m", "kindling_cli.main", "run", str(folder), "--store", str(folder / "store")]
        environment = os.environ | {"PYTHONPATH": str(HERE)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
        name = json.loads((folder / "store" / "names" / "AlignmentRun" / "default" / "rule.json").read_text())
        curve = Path(name["uri"].removeprefix("file://")) / "metrics.jsonl"
        rows = [row for line in curve.read_text().splitlines() if "reward" in (row := json.loads(line))]
    began = rows[0]["time"] - rows[0]["step_seconds"]
    good = next((row for row in rows if row["reward"] >= ENOUGH), None)
    return {
        "steps": good and good["step"],
        "seconds": good and good["time"] - began,
        "first": rows[0]["reward"],
        "best": max(row["reward"] for row in rows),
    }


def write_base(folder: Path, seed: int) -> None:
    """A random model of a million parameters that reads bytes, in Hugging Face form."""
    sizes = {"architecture": "llama", "layers": 5, "heads": 4, "kv_heads": 4, "width": 128, "ffn_width": 344}
    shape = ModelShape.model_validate(sizes | {"context": 32, "tied_embeddings": True})
    export_random(folder, shape, byte_tokenizer(), seed)


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
