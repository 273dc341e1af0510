"""Run nanoGPT's CPU recipe once from a checkout, and print what it reached as one line of JSON.

    python bench/shakespeare/nanogpt.py CHECKOUT TEXT FOLDER SEED

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
from pathlib import Path

import numpy as np
import torch

CONTEXT = 64
FLAGS = (
    "--device=cpu --compile=False --eval_iters=20 --log_interval=1 --block_size=64 --batch_size=12 --n_layer=4 "
    "--n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 --dropout=0.0 --always_save_checkpoint=True"
)


def main() -> None:
    checkout, text, folder, seed = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".git"))
    script = folder / "train.py"
    script.write_text(script.read_text().replace("torch.manual_seed(1337", f"torch.manual_seed({seed}"))
    tail = prepare(text.read_text(), folder / "data" / "shakespeare_char")
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py", *FLAGS.split()]
    log = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    times = {int(step): float(ms) / 1000 for step, ms in re.findall(r"^iter (\d+): .* time ([\d.]+)ms", log, re.M)}
    # The step after an evaluation carries the evaluation's time.
    seconds = [time for step, time in times.items() if step > 100 and step % 250]
    print(json.dumps({"loss": loss_over(tail, folder), "stepSeconds": seconds}))


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


def loss_over(tail: np.ndarray, folder: Path) -> float:
    """Mean loss over all of `tail`, in windows of CONTEXT that do not overlap; the last one is shorter."""
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig  # nanoGPT's

    checkpoint = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=False)
    assert checkpoint["iter_num"] == 2000, checkpoint["iter_num"]
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
