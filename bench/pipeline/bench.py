"""How long the step of a pipeline takes, beside PyTorch's own schedule (torch.distributed.pipelining, Schedule1F1B).

    python bench/pipeline/bench.py [--stages 2] [--micro-batches 2 4 8 16] [--steps 10] [--toy] [--json FILE]

Both train the same model, cut at the same layers, on the same tokens, in fp32 on the CPU, a thread a stage; their
losses must agree. `bubble` is the part of a step in which a stage computes no micro-batch: by the formula, which is
(p - 1) / (m + p - 1), and as measured on our side, where a micro-batch costs what the last ones add. PyTorch's schedule
takes as many micro-batches as stages, or more.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures
from random_models import RandomText, TokensAndTargets, shifted

from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.training import AdamW, TrainingSpec
from kindling_trainer.estimate.pipeline_schedule import bubble, stages_of
from kindling_trainer.loop.step import Stepper
from kindling_trainer.loss import token_loss
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.models.llama import Llama
from kindling_trainer.optim.adamw import build_adamw
from kindling_trainer.parallel.apply import parallelize
from kindling_trainer.parallel.mesh import Ranks, join
from kindling_trainer.parallel.pipeline import norm_over_stages

VOCABULARY = 1024
SIZES = {"layers": 8, "heads": 4, "width": 256, "ffn_width": 704, "context": 128}
TOY = {"layers": 4, "heads": 4, "width": 64, "ffn_width": 192, "context": 32}
SEQUENCES = 2
"""Of a micro-batch."""
Batches = list[TokensAndTargets]


class Part(nn.Module):
    """A stage as torch.distributed.pipelining wants it: a module from what comes in to what goes out."""

    def __init__(self, model: Llama, stage: int, stages: int) -> None:
        super().__init__()
        cut = stages_of(model.shape, VOCABULARY, stages)[stage]
        self.embedding = model.embedding if cut.is_first else None
        self.layers = nn.ModuleList(model.layers[index] for index in cut.layers)
        self.norm, self.head = (model.norm, model.head) if cut.is_last else (None, None)
        self.rotary = model.rotary

    def forward(self, x: Tensor) -> Tensor:
        rotation = self.rotary(slice(x.shape[1]))
        x = x if self.embedding is None else self.embedding(x)
        for layer in self.layers:
            x = layer(x, rotation)
        return x if self.norm is None or self.head is None else self.head(self.norm(x))


def main() -> None:
    arguments = parse_arguments()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(work, (arguments, port, queue), nprocs=arguments.stages)
    rows = queue.get()
    print(f"{'micro-batches':>13} {'ours':>8} {'torch':>8}   {'bubble':>7} {'measured':>8}")
    for row in rows:
        print(
            f"{row['microBatches']:>13} {row['ours']:>7.3f}s {row['torch']:>7.3f}s   {row['bubble']:>7.0%}"
            f" {row['measured']:>8.0%}"
        )
    facts = {"torch": torch.__version__, "stages": arguments.stages, "model": TOY if arguments.toy else SIZES}
    write_figures(arguments.json, {**facts, "rows": rows})


def parse_arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--steps", type=int, default=10, help="optimizer steps measured, in turn with the other side's")
    parser.add_argument("--toy", action="store_true", help="toy sizes, to see that the path works")
    return parser.parse_args()


def work(rank: int, arguments: argparse.Namespace, port: int, queue: Any) -> None:
    torch.set_num_threads(1)
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": arguments.stages, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()}, MASTER_ADDR="127.0.0.1")
    ranks = join(Layout(pipeline=arguments.stages), TrainingResources(processes_per_node=arguments.stages))
    sizes = TOY if arguments.toy else SIZES
    shape = ModelShape.model_validate({"architecture": "llama", "kv_heads": sizes["heads"], **sizes})
    rows = [measure(shape, ranks, count, arguments.steps) for count in sorted(arguments.micro_batches)]
    for row in rows:
        a_micro_batch = (rows[-1]["ours"] - rows[0]["ours"]) / max(
            1, rows[-1]["microBatches"] - rows[0]["microBatches"]
        )
        row["measured"] = max(0.0, 1 - row["microBatches"] * a_micro_batch / row["ours"])
    if ranks.leads:
        queue.put(rows)
    dist.destroy_process_group()


def measure(shape: ModelShape, ranks: Ranks, count: int, steps: int) -> dict[str, Any]:
    """Median seconds of a step of `count` micro-batches on each side, which take their steps in turn."""
    random = torch.Generator().manual_seed(count)
    windows = torch.randint(VOCABULARY, (count, SEQUENCES, shape.context + 1), generator=random)
    batches = [shifted(window) for window in windows]
    sides = {"ours": ours(shape, ranks, batches), "torch": theirs(shape, ranks, batches)}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(steps + 1):
        losses = {}
        for name, side in sides.items():
            dist.barrier(ranks.control)
            began = time.perf_counter()
            losses[name] = side(step)
            dist.barrier(ranks.control)
            seconds[name].append(time.perf_counter() - began)
        assert abs(losses["ours"] - losses["torch"]) < 1e-3, losses
    medians = {name: sorted(times[1:])[steps // 2] for name, times in seconds.items()}  # the first one warms up
    return {"microBatches": count, "bubble": bubble(ranks.layout.pipeline, count), **medians}


def ours(shape: ModelShape, ranks: Ranks, batches: Batches) -> Any:
    """Takes a step, and gives its loss."""
    training = TrainingSpec(steps=1, precision="fp32")
    with torch.device("meta"):
        model = build_model(shape, VOCABULARY)
    parallel = parallelize(model, training, ranks, compiled=False)
    model.to_empty(device="cpu")
    initialize(model, seed=1)
    objective = RandomText(parallel, batches)
    stepper = Stepper(model, build_adamw(model, AdamW()), objective, training, ranks)
    return lambda step: float(ranks.sum_over_batch(stepper.take(objective.local_batch(step), step).loss))


def theirs(shape: ModelShape, ranks: Ranks, batches: Batches) -> Any:
    """The same with PyTorch's schedule."""
    training = TrainingSpec(steps=1)
    model = build_model(shape, VOCABULARY)
    assert isinstance(model, Llama)
    initialize(model, seed=1)
    part = Part(model, ranks.stage, ranks.layout.pipeline)
    optimizer = build_adamw(part, AdamW())
    total = tokens_of(batches)
    stage = PipelineStage(part, ranks.stage, ranks.layout.pipeline, ranks.device, group=ranks.pipeline_group)
    schedule = Schedule1F1B(
        stage, len(batches), loss_fn=lambda logits, targets: token_loss(logits, targets) / total, scale_grads=False
    )
    tokens, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))

    def take(step: int) -> float:
        losses: list[Tensor] = []
        schedule.step(
            *([tokens] if ranks.stage == 0 else []), target=targets if ranks.on_last_stage else None, losses=losses
        )
        own = nn.utils.get_total_norm([parameter.grad for parameter in part.parameters() if parameter.grad is not None])
        norm = torch.tensor(norm_over_stages(float(own), ranks))
        nn.utils.clip_grads_with_norm_(part.parameters(), training.gradient_clip, norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(ranks.sum_over_batch(sum(losses, torch.zeros(())).detach()))

    return take


def tokens_of(batches: Batches) -> int:
    return sum(targets.numel() for _, targets in batches)


if __name__ == "__main__":
    main()
