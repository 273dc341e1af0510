"""Fine-tuning and preference optimisation beside TRL: the same model, records, precision and threads, one epoch each.

    python bench/align/bench.py sft --data gsm8k/train.jsonl --trl-python venv/bin/python
    python bench/align/bench.py dpo --data 'hh-rlhf/*.jsonl.gz' --trl-python venv/bin/python

The environment of `--trl-python` has TRL beside what Kindling needs; without it, only ours is measured. Two figures are
told: samples/s over the steps but the first two, and samples/s of the whole process, in which ours also computes DPO's
reference before the first step. Peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from kindling_api.base import canonical_json, key_of
from kindling_api.v1alpha1.alignment_run import AlignmentData, AlignmentRunSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Input, Progress
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import open_store
from kindling_trainer.align.data import read_dialogues, read_pairs
from kindling_trainer.align.formats import Messages, dialogue, pair
from kindling_trainer.align.read import open_sources
from kindling_trainer.align.template import DEFAULT, ChatTemplate, add_special_tokens
from kindling_trainer.checkpoint.huggingface import export
from kindling_trainer.checkpoint.huggingface.folder import ChatFiles
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize

WARM_UP = 2
"""Steps that do not count: compilation, first allocations."""


def main() -> None:
    """Measure both sides, and print a table."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
        folder = Path(name)
        template = make_base(folder, options)
        count = write_records(folder, template, options)
        rows = [{"side": "kindling", **ours(folder, count, options)}]
        if options.trl_python:
            rows.append({"side": "trl", **trl(folder, count, options)})
    if options.json:
        print(json.dumps({"method": options.method, "samples": count, "rows": rows}))
        return
    print(f"{options.method}, {count} samples, {options.layers} layers of {options.width}, {options.threads} threads")
    print(f"{'':10} {'samples/s':>10} {'whole run':>10} {'peak MiB':>10} {'loss':>8}")
    for row in rows:
        print(
            f"{row['side']:10} {row['samples_per_second']:10.2f} {row['whole']:10.2f} {row['peak_mib']:10.0f}"
            f" {row['loss']:8.4f}"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=["sft", "dpo"])
    parser.add_argument("--data", required=True, help="records: a file or a glob")
    parser.add_argument("--trl-python", help="the Python of an environment with TRL")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument(
        "--micro-batch", type=int, default=4, help="sequences at once: of ours windows, of TRL's samples"
    )
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def make_base(folder: Path, options: argparse.Namespace) -> ChatTemplate:
    """A model with random weights, and a tokenizer learnt from the records."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=options.vocabulary - 4, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for parts in records(options) for text in texts(parts)), trainer)
    add_special_tokens(tokenizer, DEFAULT)
    template = ChatTemplate(DEFAULT, tokenizer)
    stop, size = template.stop_token(), tokenizer.get_vocab_size()
    assert stop is not None
    shape = ModelShape.model_validate(
        {
            "architecture": "llama", "layers": options.layers, "width": options.width, "heads": options.width // 64,
            "kv_heads": options.width // 64, "ffn_width": 8 * options.width // 3 // 64 * 64, "context": options.context,
        }
    )  # fmt: skip
    model = build_model(shape, size)
    initialize(model, 0)
    weights = ((name, parameter.detach()) for name, parameter in model.named_parameters())
    export(
        open_store((folder / "base").as_uri()), weights, shape, vocab_size=size, tokenizer=tokenizer.to_str().encode(),
        end_of_document=None, chat=ChatFiles(template.exported, stop),
    )  # fmt: skip
    return template


def records(options: argparse.Namespace) -> Iterator[dict[str, Messages]]:
    """The prompt and its answers, as messages, from the file."""
    for source in open_sources([AlignmentData(uri=options.data)], open_store):
        for record in source.records():
            if options.method == "dpo":
                both = pair(record.fields, record.form)
                if both.chosen != both.rejected:
                    yield {"prompt": both.prompt, "chosen": both.chosen, "rejected": both.rejected}
            elif (found := dialogue(record.fields, record.form)) is not None:
                yield {"prompt": found.messages[: found.learned], "completion": found.messages[found.learned :]}


def texts(parts: dict[str, Messages]) -> Iterator[str]:
    """All that is said."""
    return (message.content for part in parts.values() for message in part)


def write_records(folder: Path, template: ChatTemplate, options: argparse.Namespace) -> int:
    """The first records that fit, for both sides; how many they are."""
    read = read_pairs if options.method == "dpo" else read_dialogues
    count = 0
    with (folder / "records.jsonl").open("w") as file:
        for parts in records(options):
            messages = {name: [message._asdict() for message in part] for name, part in parts.items()}
            line = json.dumps(messages) + "\n"
            (folder / "one.jsonl").write_text(line)
            sources = open_sources([AlignmentData(uri=str(folder / "one.jsonl"))], open_store)
            if len(read(sources, template, context=options.context - 1)[0]):
                file.write(line)
                count += 1
            if count == options.samples:
                break
    return count


def ours(folder: Path, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch of ours."""
    sequences = 4 * options.micro_batch
    spec = {
        "base": {"uri": str(folder / "base")},
        "method": {options.method: {}},
        "data": [{"uri": str(folder / "records.jsonl")}],
        "validation": {"fraction": 0},
        "training": {
            "epochs": 1,
            "batch": {"tokens": sequences * options.context, "microBatch": options.micro_batch},
            "precision": "fp32",
        },
        "evaluation": {"every": 10**6, "prompts": []},
        "checkpoint": {"every": "1h"},
    }
    run = AlignmentRunFile(
        name="bench", key=key_of("bench"), output=StorageSpec(uri=(folder / "store").as_uri()),
        spec=AlignmentRunSpec.model_validate(spec, strict=False), base=Input(uri=str(folder / "base")),
    )  # fmt: skip
    (folder / "run.json").write_bytes(canonical_json(run.document()))
    progress = folder / "progress.json"
    command = [sys.executable, "-m", "kindling_trainer", str(folder / "run.json"), "--progress", str(progress)]
    seconds, peak = measured(command, options)
    result = Progress.model_validate_json(progress.read_bytes()).result
    assert result is not None
    lines = open_store(result.uri).get("metrics.jsonl").splitlines()
    steps = [row for row in map(json.loads, lines) if "loss" in row]
    samples = count / len(steps)
    return _row([row["step_seconds"] for row in steps], samples, seconds, count, peak, steps[-1]["loss"])


def trl(folder: Path, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch of TRL's."""
    out = folder / "trl.json"
    script = Path(__file__).with_name("trl_side.py")
    command = [options.trl_python, str(script), options.method, str(folder), str(out), str(options.micro_batch)]
    command += [str(options.context)]
    seconds, peak = measured(command, options)
    found = json.loads(out.read_text())
    return _row(found["step_seconds"], found["samples_per_step"], seconds, count, peak, found["loss"])


def measured(command: list[str], options: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a command and all processes that it starts."""
    environment = os.environ | {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "true"}
    began = time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} failed:\n{said[-3000:]}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024


def _row(steps: list[float], samples: float, seconds: float, count: int, peak: float, loss: float) -> dict[str, float]:
    counted = steps[WARM_UP:] or steps
    speed = samples * len(counted) / sum(counted)
    return {"samples_per_second": speed, "whole": count / seconds, "peak_mib": peak, "loss": loss, "steps": len(steps)}


if __name__ == "__main__":
    main()
