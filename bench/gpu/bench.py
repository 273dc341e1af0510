"""Time training steps of GPT-2 124M (T = 1,024) and a 1.2 B Llama (T = 2,048) in bf16 on one GPU.

    python bench/gpu/bench.py [--only gpt2-124m] [--steps 20] [--json FILE]
    python bench/gpu/bench.py --toy          the same path at toy size, on a CPU

Each model takes the trainer's own step (forward, backward, clipping, AdamW) on random tokens, compiled, in one process.
Time is that of all measured steps together, after warm-up, with the device idle before and after. MFU is printed in two
conventions: with attention counted whole (6N + 12·L·H·Q·T FLOPs a token: Chowdhery et al. 2022, PaLM, appendix B; as
nanoGPT and torchtitan do) and with its causal half only (as NVIDIA does), against the stated peak.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures
from random_models import RandomText, TokensAndTargets, shifted

from kindling_api.v1alpha1.model import PRESETS, ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.sizes import flops_per_token, parameters
from kindling_api.v1alpha1.training import AdamW, Batch, TrainingSpec
from kindling_trainer.loop.step import Stepper
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.optim.adamw import build_adamw
from kindling_trainer.parallel.apply import parallelize
from kindling_trainer.parallel.compile import use_compiler
from kindling_trainer.parallel.mesh import Ranks, join
from kindling_trainer.telemetry.peak_flops import peak_flops


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    shape: ModelShape
    vocab_size: int
    micro_batch: int
    accumulation: int


GPU_CASES = (
    Case("gpt2-124m", PRESETS["gpt2-124m"], vocab_size=50_257, micro_batch=32, accumulation=4),
    Case("llama-1.2b", PRESETS["llama-1.2b"], vocab_size=128_256, micro_batch=8, accumulation=2),
)
TOY = {"layers": 2, "context": 32}
TOY_CASES = (
    Case("gpt2-toy", PRESETS["gpt2-tiny"].model_copy(update=TOY), vocab_size=512, micro_batch=2, accumulation=2),
    Case("llama-toy", PRESETS["llama-tiny"].model_copy(update=TOY), vocab_size=512, micro_batch=2, accumulation=1),
)


def main() -> None:
    arguments = parse_arguments()
    resources = TrainingResources(gpu=None if arguments.toy else "nvidia.com/gpu")
    ranks = join(Layout(), resources)
    cases = TOY_CASES if arguments.toy else GPU_CASES
    rows = []
    for case in cases:
        if arguments.only in (None, case.name):
            rows.append(measure(case, ranks, arguments))
            print_row(rows[-1])
    write_figures(arguments.json, {"torch": torch.__version__, "device": device_name(ranks), "rows": rows})


def parse_arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--toy", action="store_true", help="toy sizes on the CPU, to see that the path works")
    parser.add_argument("--only", help="one of the models")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps measured")
    parser.add_argument("--warm-up", type=int, default=5, help="optimizer steps before them")
    parser.add_argument("--compile", default="auto", choices=("auto", "always", "never"))
    return parser.parse_args()


def measure(case: Case, ranks: Ranks, arguments: argparse.Namespace) -> dict[str, Any]:
    """Build the model as a run does, and time its steps."""
    shape, vocab_size = case.shape, case.shape.padded_vocab(case.vocab_size)
    tokens_per_step = case.micro_batch * case.accumulation * shape.context
    batch = Batch(tokens=tokens_per_step, micro_batch=case.micro_batch)
    training = TrainingSpec(steps=1, batch=batch, precision="bf16", compile=arguments.compile)
    with torch.device("meta"):
        model = build_model(shape, vocab_size)
    parallel = parallelize(model, training, ranks, compiled=use_compiler(training.compile, ranks, inf))
    model.to_empty(device=ranks.device)
    initialize(model, seed=1337)
    objective = RandomText(parallel, [random_batch(case, ranks) for _ in range(case.accumulation)])
    stepper = Stepper(model, build_adamw(model, AdamW()), objective, training, ranks)

    began = time.perf_counter()
    for step in range(arguments.warm_up):
        stepper.take(objective.local_batch(step), step)
    synchronize(ranks)
    warm = time.perf_counter()
    for step in range(arguments.steps):
        stepper.take(objective.local_batch(step), step)
    synchronize(ranks)
    seconds = (time.perf_counter() - warm) / arguments.steps

    row = describe(case, tokens_per_step / seconds, peak_flops(ranks, training))
    row |= {"secondsPerStep": seconds, "warmUpSeconds": warm - began}
    if ranks.device.type == "cuda":
        row["peakMemoryGiB"] = torch.cuda.max_memory_allocated() / 2**30
        torch.cuda.reset_peak_memory_stats()
    del model, parallel, objective, stepper
    gc.collect()
    return row


def random_batch(case: Case, ranks: Ranks) -> TokensAndTargets:
    """One micro-batch."""
    size = (case.micro_batch, case.shape.context + 1)
    return shifted(torch.randint(case.vocab_size, size, device=ranks.device))


def describe(case: Case, tokens_per_second: float, peak: float | None) -> dict[str, Any]:
    """The case, its speed, and its utilisation in both conventions where the peak is known."""
    shape, vocab_size = case.shape, case.shape.padded_vocab(case.vocab_size)
    whole = flops_per_token(shape, vocab_size, shape.context)
    causal = whole - 6 * shape.layers * shape.heads * shape.head_width * shape.context
    return {
        **{name: value for name, value in asdict(case).items() if name != "shape"},
        "context": shape.context,
        "parameters": parameters(shape, vocab_size),
        "tokensPerSecond": tokens_per_second,
        "peakFlops": peak,
        "mfu": tokens_per_second * whole / peak if peak else None,
        "mfuCausal": tokens_per_second * causal / peak if peak else None,
    }


def synchronize(ranks: Ranks) -> None:
    if ranks.device.type == "cuda":
        torch.cuda.synchronize()


def device_name(ranks: Ranks) -> str:
    return torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else "CPU"


def print_row(row: dict[str, Any]) -> None:
    figures = [
        f"{row['name']:<12}",
        f"{row['parameters'] / 1e6:8.1f} M parameters",
        f"T {row['context']}",
        f"{row['secondsPerStep'] * 1000:9.1f} ms/step",
        f"{row['tokensPerSecond']:12,.0f} tokens/s",
    ]
    if row["mfu"] is not None:
        peak = row["peakFlops"] / 1e12
        figures.append(f"MFU {row['mfu']:.1%} ({row['mfuCausal']:.1%} causal) of {peak:.0f} TFLOP/s")
    print("  ".join(figures), flush=True)


if __name__ == "__main__":
    main()
