"""What a checkpoint costs: how long training stands still for it, and its bytes a second beside plain boto3.

    python bench/checkpoint/bench.py [--minio PROGRAM] [--width 1024] [--layers 12] [--times 5] [--json FILE]

One process trains a Llama with AdamW and saves it to a MinIO on this machine, as a run does; without `--minio` the
server is moto's, which is slower than either side. Stall: what a step that saves takes more than one that does not;
of steps while the checkpoint is written it is said how much slower they are, since training, client and server share
this machine's cores. The peer uploads and downloads the same bytes, from memory and to memory, by boto3's own
multipart transfer (`upload_fileobj`, `download_fileobj`) with its defaults. What is read back is compared.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import boto3
import torch
from common import options_of, write_figures

from kindling_api.v1alpha1.model import ModelShape, ModelSpec
from kindling_api.v1alpha1.optimizer import AdamW
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.products import CheckpointManifest
from kindling_storage import ObjectStore, open_store
from kindling_trainer.checkpoint.folders import Folder, checkpoint_store
from kindling_trainer.checkpoint.load import load, training_state
from kindling_trainer.checkpoint.save import Saver
from kindling_trainer.loss import token_loss
from kindling_trainer.models import Decoder, build_model
from kindling_trainer.models.initialize import initialize
from kindling_trainer.optim.adamw import build_adamw

VOCABULARY = 8192
USER, PASSWORD = "kindling-bench", "kindling-bench-secret"
BUCKET, A_MINUTE = "bench", 60.0


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--minio", help="MinIO's program")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--times", type=int, default=5, help="saves, loads and transfers, of which the median counts")
    options = parser.parse_args()
    os.environ.update(AWS_ACCESS_KEY_ID=USER, AWS_SECRET_ACCESS_KEY=PASSWORD, AWS_DEFAULT_REGION="us-east-1")
    shape = ModelSpec(architecture="llama", layers=options.layers, heads=8, width=options.width, context=128).shape()
    with server(options.minio) as endpoint:
        client = boto3.client("s3", endpoint_url=endpoint)
        client.create_bucket(Bucket=BUCKET)
        run = open_store(f"s3://{BUCKET}/run", endpoint=endpoint)
        training = Training(shape)
        figures = stall(training, saver_of(run, shape), options.times)
        size = sum(tensor.nbytes for tensor in training.state.values())
        figures["mebibytes"] = size / 2**20
        figures |= {f"{what}, MiB/s": size / 2**20 / taken for what, taken in ours(run, training, options).items()}
        figures |= {f"{what}, MiB/s": size / 2**20 / taken for what, taken in boto(client, size, options).items()}
    for name, value in figures.items():
        print(f"{name:>44}  {value:10.3f}")
    write_figures(options.json, figures)


class Training:
    """One process that trains, without data: of a step, what matters here is that it is one."""

    def __init__(self, shape: ModelShape) -> None:
        self.model: Decoder = build_model(shape, VOCABULARY)
        initialize(self.model, seed=1)
        self._optimizer = build_adamw(self.model, AdamW())
        self._tokens = torch.randint(VOCABULARY, (1, shape.context + 1))
        self.step()
        self.state = training_state(self.model, self._optimizer)

    def step(self) -> float:
        """Its seconds."""
        began = time.monotonic()
        token_loss(self.model(self._tokens[:, :-1]), self._tokens[:, 1:]).backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return time.monotonic() - began


def saver_of(run: ObjectStore, shape: ModelShape) -> Saver:
    digest = "sha256:" + "0" * 64
    facts = CheckpointManifest(
        key=digest, step=0, tokens=0, attempt=1, layout=Layout(), dataset=digest, tokenizer=digest,
        shape=shape, vocab_size=VOCABULARY, files=[],
    )  # fmt: skip
    return Saver(run, facts, keep=1, group=None, committing=lambda: None, committed=lambda _: None)


def stall(training: Training, saver: Saver, times: int) -> dict[str, float]:
    """Seconds of a step without a save, of one with it, and of those while it is written."""
    alone, stands, beside, writing = [training.step() for _ in range(8)], [], [], []
    for step in range(1, times + 1):
        began = time.monotonic()
        saver.save(training.state, step=step, tokens=step)
        stands.append(time.monotonic() - began)
        while saver.is_writing:
            beside.append(training.step())
        saver.wait()
        writing.append(time.monotonic() - began)
        alone += [training.step() for _ in range(4)]
    quiet, blocked = statistics.median(alone), statistics.median(stands)
    return {
        "a step, s": quiet,
        "training stands still for a save, s": blocked,
        "of a minute, %": 100 * blocked / A_MINUTE,
        "a checkpoint is committed after, s": statistics.median(writing),
        "steps beside it, times as long": statistics.median(beside) / quiet,
    }


def ours(run: ObjectStore, training: Training, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of a save with nothing beside it, and of a load into another model."""
    saver = saver_of(run, training.model.shape)
    numbers = iter(range(1000, 1000 + options.times))

    def save() -> None:
        saver.save(training.state, step=next(numbers), tokens=0)
        saver.wait()

    saved = median_of(save, options.times)
    newest = checkpoint_store(run, Folder(999 + options.times, 1))
    back = {name: torch.empty_like(tensor) for name, tensor in training.state.items()}
    loaded = median_of(lambda: load(newest, back, None), options.times)
    assert all(torch.equal(back[name], tensor) for name, tensor in training.state.items())
    return {"save": saved, "load": loaded}


def boto(client: Any, size: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of as many bytes, there and back."""
    content = os.urandom(1 << 20) * (size >> 20)
    sent = median_of(lambda: client.upload_fileobj(io.BytesIO(content), BUCKET, "plain"), options.times)
    got = median_of(lambda: client.download_fileobj(BUCKET, "plain", io.BytesIO()), options.times)
    return {"boto3, upload": sent, "boto3, download": got}


def median_of(act: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.monotonic()
        act()
        taken.append(time.monotonic() - began)
    return statistics.median(taken)


@contextlib.contextmanager
def server(minio: str | None) -> Iterator[str]:
    """The address of an S3 server on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if minio is None:
        from moto.server import ThreadedMotoServer

        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        moto.start()
        yield f"http://127.0.0.1:{port}"
        moto.stop()
        return
    settings = os.environ | {"MINIO_ROOT_USER": USER, "MINIO_ROOT_PASSWORD": PASSWORD}
    with tempfile.TemporaryDirectory() as folder:
        command = [minio, "server", "--quiet", "--address", f"127.0.0.1:{port}", folder]
        process = subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
            time.sleep(2)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
