"""Whether models of every family are computed, trained, and handed back as transformers has them.

    python bench/families/bench.py [--families llama-3.1 qwen3 …] [--steps 3] [--json FILE]

Of each family a folder with random weights and odd sizes is written by transformers; some are of bf16, and in several
files. `import`: the largest difference of a logit from transformers', in fp32. `greedy`: tokens of 32 that are the same
as transformers' `generate` gives. `parity`: the largest difference of a loss or a gradient's norm, relative to it, from
those of one process, over some steps on two, spread as dp2, fsdp2, tp2, pp2 and cp2. `export`: whether the tensors,
written back in their type, are the same bit for bit, and so is config.json. `again`: the difference of a logit
of what was written back, as transformers reads it.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ |= {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import torch
import torch.distributed as dist
import torch.multiprocessing
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures
from random_families import CASES, VOCABULARY
from random_models import RandomText, shifted

from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_api.v1alpha1.training import AdamW, TrainingSpec
from kindling_storage import ObjectStore, open_store
from kindling_trainer.checkpoint.huggingface import cast, export, read_model, read_shape, read_tokenizer
from kindling_trainer.inference.batching import continue_tokens
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.loop.objective import LocalBatch
from kindling_trainer.loop.restore import copy_weights
from kindling_trainer.loop.step import Stepper
from kindling_trainer.models import build_model
from kindling_trainer.optim.adamw import build_adamw
from kindling_trainer.parallel.apply import parallelize
from kindling_trainer.parallel.mesh import Ranks, join

LAYOUTS = {
    "dp2": Layout(data=2, sharding="none"),
    "fsdp2": Layout(data=2),
    "tp2": Layout(tensor=2),
    "pp2": Layout(pipeline=2),
    "cp2": Layout(context=2),
}
LENGTH, SEQUENCES, PROMPT, ANSWER = 32, 8, 10, 32
ROWS = 64
"""Of the embedding in training, where two processes share them."""
Curve = list[float]


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for family in arguments.families:
            CASES[family].save(folder / family)
        curves = spread(arguments, folder)
        alone = join(Layout(), TrainingResources())
        columns = ["import", "greedy", *LAYOUTS, "export", "again"]
        print(f"{'':20} " + " ".join(f"{column:>8}" for column in columns))
        rows = {}
        for family in arguments.families:
            expected = train(open_store((folder / family).as_uri()), alone, arguments.steps)
            rows[family] = compared(folder / family) | {
                layout: difference(curves[layout][family], expected) for layout in LAYOUTS
            }
            shown = [rows[family][column] for column in columns]
            print(
                f"{family:20} " + " ".join(f"{x:8.0e}" if isinstance(x, float) else f"{x!s:>8}" for x in shown),
                flush=True,
            )
    write_figures(arguments.json, {"torch": torch.__version__, "rows": rows})


def parse_arguments() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--families", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--steps", type=int, default=3)
    return parser.parse_args()


def compared(folder: Path) -> dict[str, Any]:
    """A folder read by both sides, and written back by ours."""
    store, back = open_store(folder.as_uri()), open_store((folder / "back").as_uri())
    tokens = torch.randint(VOCABULARY, (2, 64), generator=torch.Generator().manual_seed(1))
    ours, theirs = read_model(store), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = tokens[:1, :PROMPT]
    options = GenerationOptions(max_tokens=ANSWER, temperature=0)
    with torch.no_grad():
        logits = theirs(tokens).logits
        imported = float((ours(tokens) - logits).abs().max())
        expected = theirs.generate(prompt, do_sample=False, max_new_tokens=ANSWER, eos_token_id=None, pad_token_id=0)
        found = list(continue_tokens(ours, prompt[0].tolist(), options))
        write_back(store, back)
        cast(back, CASES[folder.name].dtype_name)
        again = AutoModelForCausalLM.from_pretrained(folder / "back", dtype=torch.float32).eval()
        exported = float((again(tokens).logits - logits).abs().max())
    same = sum(a == b for a, b in zip(found, expected[0, PROMPT:].tolist(), strict=True))
    return {"import": imported, "greedy": same, "export": is_same(folder, folder / "back"), "again": exported}


def write_back(store: ObjectStore, back: ObjectStore) -> None:
    """Import and export, without training."""
    model = read_model(store)
    tokenizer, special = read_tokenizer(store)
    export(
        back,
        ((name, parameter.detach()) for name, parameter in model.named_parameters()),
        model.shape,
        vocab_size=VOCABULARY,
        tokenizer=tokenizer.to_str().encode(),
        end_of_document=special.eos,
        special=special,
    )


def is_same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same tensors, and describe the same model."""
    tensors, configs = [], []
    for folder in (one, other):
        files = sorted(folder.glob("*.safetensors"))
        tensors.append({name: tensor for file in files for name, tensor in load_file(file).items()})
        config = json.loads((folder / "config.json").read_text())
        configs.append(config)
    if tensors[0].keys() != tensors[1].keys() or configs[0] != configs[1]:
        return False
    return all(
        tensor.dtype == tensors[1][name].dtype and torch.equal(tensor, tensors[1][name])
        for name, tensor in tensors[0].items()
    )


def spread(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, Curve]]:
    """The curve of each family on each layout of two processes."""
    ports = []
    for _ in LAYOUTS:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    queue = torch.multiprocessing.get_context("spawn").SimpleQueue()
    torch.multiprocessing.spawn(work, (arguments, folder, ports, queue), nprocs=2)
    curves: dict[str, dict[str, Curve]] = queue.get()
    return curves


def work(rank: int, arguments: argparse.Namespace, folder: Path, ports: list[int], queue: Any) -> None:
    """One of the two processes."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    curves: dict[str, dict[str, Curve]] = {}
    for (name, layout), port in zip(LAYOUTS.items(), ports, strict=True):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in variables.items()}, MASTER_ADDR="127.0.0.1")
        ranks = join(layout, TrainingResources(processes_per_node=2))
        curves[name] = {
            family: train(open_store((folder / family).as_uri()), ranks, arguments.steps)
            for family in arguments.families
        }
        dist.destroy_process_group()
    if rank == 0:
        queue.put(curves)


def train(store: ObjectStore, ranks: Ranks, steps: int) -> Curve:
    """Losses and gradient norms of the first steps from the weights in a folder."""
    training = TrainingSpec(steps=steps, precision="fp32")
    shape = read_shape(store)[0].model_copy(update={"vocab_multiple": ROWS})
    with torch.device("meta"):
        model = build_model(shape, ROWS)
    parallel = parallelize(model, training, ranks, compiled=False)
    model.to_empty(device="cpu")
    copy_weights(model, ranks, store, shape, ROWS)
    windows = torch.randint(VOCABULARY, (SEQUENCES, LENGTH + 1), generator=torch.Generator().manual_seed(7))
    own = [shifted(part) for part in windows[ranks.batch_rank :: ranks.layout.batch_ranks].split(2)]
    objective = RandomText(parallel, own)
    stepper = Stepper(model, build_adamw(model, AdamW(learning_rate=1e-3)), objective, training, ranks)
    curve: Curve = []
    for step in range(steps):
        taken = stepper.take(LocalBatch(own, len(own), SEQUENCES * LENGTH), step)
        curve += [float(ranks.sum_over_batch(taken.loss)), taken.norm]
    return curve


def difference(found: Curve, expected: Curve) -> float:
    """The largest, relative to what is expected."""
    return max(abs(a - b) / abs(b) for a, b in zip(found, expected, strict=True))


if __name__ == "__main__":
    main()
