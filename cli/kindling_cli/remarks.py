"""What is told before it costs: lengths from which nothing is learnt, and what this machine has not. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.training import PretrainingSpec
from kindling_cli.figures import byte_size, short_count

FEW_STEPS = 20
"""Below it the learning rate has hardly risen and fallen, and a model says what it said before."""
MANY_EPOCHS = 1000
"""Above it a model knows its data by heart; repeating data pays for some 4 epochs (Muennighoff et al. 2023,
arXiv:2305.16264)."""


@dataclass(frozen=True)
class Machine:
    """What a run finds here."""

    memory: int
    """Bytes that its processes may use together."""
    gpus: int


def on_steps(steps: int) -> list[str]:
    """Of a training that ends before it has learnt."""
    if steps >= FEW_STEPS:
        return []
    how_many = f"{steps:,} optimizer step{'s' * (steps != 1)}"
    return [f"{how_many}: too few to learn much; raise training.epochs or training.steps, or lower batch.tokens"]


def on_instability(training: PretrainingSpec, steps: int) -> list[str]:
    """Of a recipe that asks for spikes to be found, and of which no step is compared with those before.

    The first `window` steps after the warm-up are compared with none.
    """
    given = training.instability
    if given is None or given.spike == 0:
        return []
    first = round(training.schedule.warmup_fraction * steps) + given.window + 1
    if first <= steps:
        return []
    found = f"spikes are found from step {first:,} on, after the warm-up and instability.window"
    return [f"{found}, and the run has {steps:,}: only what is not finite is left out; lower the window"]


def on_epochs(tokens: int, dataset_tokens: int) -> list[str]:
    """Of a training that sees its dataset again and again."""
    epochs = tokens / max(1, dataset_tokens)
    if epochs <= MANY_EPOCHS:
        return []
    seen = f"about {short_count(epochs)} epochs over {short_count(dataset_tokens)} tokens"
    return [f"{seen}: the model will know them by heart; train for less, or give more text"]


def on_sample(documents: int, kept: int) -> list[str]:
    """Of a build that leaves nothing."""
    if kept or not documents:
        return []
    return ["none of the documents that were looked at stays: relax the rules, or give other sources"]


def on_machine(resources: TrainingResources, memory_each: float, machine: Machine) -> list[str]:
    """Of a run that this machine is too small for; its nodes fold into one.

    Args:
        memory_each: bytes that one process needs.
    """
    processes = resources.processes
    if resources.gpu is not None:
        if machine.gpus >= processes:
            return []
        there = f"{machine.gpus:,}" if machine.gpus else "none"
        wanted = f"{processes:,} GPU{'s' * (processes != 1)}"
        return [f"asks for {wanted}, and this machine has {there}: it is for a cluster, or remove resources.gpu"]
    if processes * memory_each <= machine.memory:
        return []
    needed = f"{processes:,} process{'es' * (processes != 1)} of {byte_size(memory_each)}"
    return [
        f"{needed}, and this machine has {byte_size(machine.memory)}: lower batch.microBatch, or train a smaller model"
    ]
