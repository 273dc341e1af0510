"""From how much arithmetic on torch.compile pays on this machine's CPU: the constant of `compile: auto`.

    python bench/compile/bench.py [--layers 6 --width 384 --context 256 --sequences 4]

One process takes the same steps as they are written and compiled as one graph; both must have the same losses. What
compiling costs is its processor time, the compiler's own processes included, and is paid by what it saves of each step:
a run is worth it from cost / saving steps on. Only torch and Kindling are needed; the compiler's cache is a new folder.
"""

from __future__ import annotations

import argparse
import copy
import os
import resource
import statistics
import tempfile
import time

os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp(prefix="kindling-bench-compile-")

import torch

from kindling_api.v1alpha1.model import ModelSpec
from kindling_api.v1alpha1.sizes import flops_per_token
from kindling_trainer.loss import token_loss
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize

VOCABULARY = 256
STEPS = 12


def main() -> None:
    """Measure, and print what a run must have."""
    arguments = _options()
    shape = ModelSpec(
        architecture="llama", layers=arguments.layers, heads=6, width=arguments.width, context=arguments.context
    ).shape()
    model = build_model(shape, VOCABULARY)
    initialize(model, seed=1)
    tokens = torch.randint(VOCABULARY, (arguments.sequences, arguments.context))
    plain = _steps(copy.deepcopy(model), tokens, compiled=False)
    began = _processor_seconds()
    fused = _steps(copy.deepcopy(model), tokens, compiled=True)
    cost = _processor_seconds() - began - STEPS * fused[1]
    assert abs(plain[0] - fused[0]) < 1e-3, f"not the same computation: losses {plain[0]} and {fused[0]}"
    arithmetic = tokens.numel() * flops_per_token(shape, VOCABULARY, arguments.context)
    saving = plain[1] - fused[1]
    print(f"a step: {1000 * plain[1]:.0f} ms as written, {1000 * fused[1]:.0f} ms compiled ({arithmetic:.2e} FLOPs)")
    print(f"compiling: {cost:.0f} s of processor time")
    if saving > 0:
        print(f"pays from {cost / saving:,.0f} steps on: {arithmetic * cost / saving:.1e} FLOPs")
    else:
        print("never pays")


def _steps(model: Decoder, tokens: torch.Tensor, *, compiled: bool) -> tuple[float, float]:
    """The first loss, and the median of the processor seconds that a step takes."""

    def loss(tokens: torch.Tensor) -> torch.Tensor:
        return token_loss(model(tokens[:, :-1]), tokens[:, 1:])

    function = torch.compile(loss, dynamic=False) if compiled else loss
    losses, seconds = [], []
    for _ in range(STEPS):
        began = time.process_time()
        value = function(tokens)
        value.backward()
        model.zero_grad()
        seconds.append(time.process_time() - began)
        losses.append(value.item() / tokens[:, 1:].numel())
    return losses[0], statistics.median(seconds)


def _processor_seconds() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--sequences", type=int, default=4)
    return parser.parse_args()


if __name__ == "__main__":
    main()
