"""Run nanoGPT's CPU recipe once from a checkout, and print what it reached as one line of JSON.

    python bench/shakespeare/nanogpt.py CHECKOUT TEXT FOLDER SEED STEPS

Before it, our model with the weights of one of nanoGPT's has to find the loss that nanoGPT's does.

nanoGPT has no flag for its seed, so the run is made in a copy in which that one number is replaced; everything else is
its code and its README's flags.
"""

from __future__ import annotations

import json
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from kindling_api.v1alpha1.model import ModelShape
from kindling_trainer.checkpoint.huggingface.weights import from_hugging_face
from kindling_trainer.models import build_model

CONTEXT = 64
TOLERANCE = 1e-5
FLAGS = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 "
    "--n_head=4 --n_embd=128 --dropout=0.0 --always_save_checkpoint=True"
)


def main() -> None:
    checkout, text, folder = map(Path, sys.argv[1:4])
    seed, steps = map(int, sys.argv[4:])
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git"))
    script = folder / "train.py"
    script.write_text(script.read_text().replace("torch.manual_seed(1337", f"torch.manual_seed({seed}"))
    tail = prepare(text.read_text(), folder / "data" / "shakespeare_char")
    sys.path.insert(0, str(folder))
    check_same(tail)
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *FLAGS.split()]
    interval = min(250, steps)
    command += [f"--max_iters={steps}", f"--lr_decay_iters={steps}", f"--eval_interval={interval}"]
    log = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    times = {int(step): float(ms) / 1000 for step, ms in re.findall(r"^iter (\d+): .* time ([\d.]+)ms", log, re.M)}
    # The step after an evaluation carries the evaluation's time.
    seconds = [time for step, time in times.items() if step > steps // 20 and step % interval]
    print(json.dumps({"loss": loss_over(tail, folder, steps), "stepSeconds": seconds}))


def prepare(text: str, folder: Path) -> np.ndarray:
    """What data/shakespeare_char/prepare.py writes, without its download; returns the validation tail."""
    characters = sorted(set(text))
    number_of = {character: number for number, character in enumerate(characters)}
    tokens = np.array([number_of[character] for character in text], dtype=np.uint16)
    cut = int(len(text) * 0.9)
    tokens[:cut].tofile(folder / "train.bin")
    tokens[cut:].tofile(folder / "val.bin")
    meta = {"vocab_size": len(characters), "stoi": number_of, "itos": dict(enumerate(characters))}
    (folder / "meta.pkl").write_bytes(pickle.dumps(meta))
    return tokens[cut:].astype(np.int64)


def check_same(tail: np.ndarray) -> None:
    """Measure nothing where the sides compute different things of the same weights and tokens."""
    from model import GPT, GPTConfig  # nanoGPT's

    vocab_size = int(tail.max()) + 1
    layers = {"n_layer": 4, "n_head": 4, "n_embd": 128, "vocab_size": vocab_size, "bias": False, "dropout": 0.0}
    theirs = GPT(GPTConfig(block_size=CONTEXT, **layers)).eval()
    sizes = {
        "architecture": "gpt2",
        "layers": 4,
        "heads": 4,
        "kv_heads": 4,
        "width": 128,
        "ffn_width": 512,
        "context": CONTEXT,
        "bias": False,
    }
    shape = ModelShape.model_validate(sizes | {"tied_embeddings": True})
    ours = build_model(shape, vocab_size).eval()
    weights = dict(our_weights(shape, theirs.state_dict()))
    ours.load_state_dict(weights | {"head.weight": weights["embedding.weight"]})
    tokens = torch.from_numpy(tail[: CONTEXT + 1])[None]
    with torch.no_grad():
        expected = theirs(tokens[:, :-1], tokens[:, 1:])[1].item()
        found = torch.nn.functional.cross_entropy(ours(tokens[:, :-1])[0], tokens[0, 1:]).item()
    if abs(found - expected) > TOLERANCE:
        sys.exit(f"with the same weights the loss is {found} here and {expected} of nanoGPT")


def our_weights(shape: ModelShape, theirs: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """nanoGPT's tensors under our names: they are named as transformers' are, whose matrices are transposed."""
    for name, tensor in theirs.items():
        is_matrix = tensor.dim() == 2 and name.startswith("transformer.h.")
        yield from from_hugging_face(shape, name, tensor.T if is_matrix else tensor)


def loss_over(tail: np.ndarray, folder: Path, steps: int) -> float:
    """Mean loss over all of `tail`, in windows of CONTEXT that do not overlap; the last one is shorter."""
    from model import GPT, GPTConfig  # nanoGPT's

    checkpoint = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=False)
    assert checkpoint["iter_num"] == steps, checkpoint["iter_num"]
    model = GPT(GPTConfig(**checkpoint["model_args"]))
    model.load_state_dict(checkpoint["model"])
    model.eval()
    total, tokens = 0.0, torch.from_numpy(tail)
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, CONTEXT):
            inputs = tokens[start : min(start + CONTEXT, len(tokens) - 1)]
            targets = tokens[start + 1 : start + 1 + len(inputs)]
            total += model(inputs[None], targets[None])[1].item() * len(inputs)
    return total / (len(tokens) - 1)


if __name__ == "__main__":
    main()
