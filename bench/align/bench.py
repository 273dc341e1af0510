"""Fine-tuning and preference optimisation beside TRL: the same model, records, precision and threads, one epoch each.

    python bench/align/bench.py sft --data gsm8k/train.jsonl --trl-python venv/bin/python
    python bench/align/bench.py dpo --data 'hh-rlhf/*.jsonl.gz' --trl-python venv/bin/python

The environment of `--trl-python` needs TRL (1.16 was used) with Kindling's versions of torch and transformers, and
nothing of Kindling's; without it, only ours is measured. First both sides take the same few records through the model
as it is before the first step, and have to find the same: the loss of fine-tuning; for DPO, whose loss is ln 2 there
whatever is computed, the log-probabilities of the answers.

Two figures are told: samples/s over the steps but the first two, and samples/s of the whole process, in which ours also
computes DPO's reference before the first step. CPU seconds are of the whole process, too: where others use the machine
meanwhile, they say more than the clock. Peak memory is that of the largest process. The losses of the last steps
are of different batches after different numbers of steps (ours packs several dialogues into a window, and so takes
fewer steps of more samples): they show that both learn, and are not to be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import Usage, measured, options_of, write_figures
from random_models import export_random, on_bytes

from kindling_api.base import canonical_json, key_of
from kindling_api.v1alpha1.alignment_run import AlignmentData, AlignmentRunSpec
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import MANIFEST
from kindling_api.v1alpha1.runfile import AlignmentRunFile, Input, Progress
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage import ObjectStore, open_store
from kindling_trainer.align.data.formats import dialogue, pair
from kindling_trainer.align.data.read import open_sources
from kindling_trainer.align.data.tokenize import read_dialogues, read_pairs
from kindling_trainer.chat.message import Messages
from kindling_trainer.chat.template import DEFAULT, ChatTemplate, add_special_tokens
from kindling_trainer.checkpoint.huggingface import ChatFiles

COMPARED = 8
"""Records of which both sides have to find the same."""
TOLERANCE = 2e-4
"""Of a figure, relative: TRL prints four digits."""
WARM_UP = 2
"""Steps that do not count: compilation, first allocations."""
ACCUMULATION = 4
"""Micro-batches of a step."""


def main() -> None:
    """Compare both sides, measure them, and print a table."""
    options = options_of_sides(__doc__)
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
        folder = Path(name)
        template = make_base(folder, options)
        count = write_records(folder, template, options)
        before = {"kindling": ours_before(folder, options)}
        if options.trl_python:
            before["trl"] = trl_before(folder, options)
            check_same(before["kindling"], before["trl"])
        rows = [{"side": "kindling", **ours(folder, count, options)}]
        if options.trl_python:
            rows.append({"side": "trl", **trl(folder, count, options)})
    write_figures(options.json, {"method": options.method, "samples": count, "before": before, "rows": rows})
    show(options, count, before, rows)


def show(
    options: argparse.Namespace, count: int, before: dict[str, dict[str, float]], rows: list[dict[str, Any]]
) -> None:
    """Print what was measured."""
    print(f"{options.method}, {count} samples, {options.layers} layers of {options.width}, {options.threads} threads")
    for side, figures in before.items():
        print(
            f"{side:10} before the first step: " + ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        )
    print(f"{'':10} {'samples/s':>10} {'whole run':>10} {'CPU s':>8} {'peak MiB':>10} {'steps':>6} {'last loss':>10}")
    for row in rows:
        print(
            f"{row['side']:10} {row['samples_per_second']:10.2f} {row['whole']:10.2f}"
            f" {row['cpu_seconds']:8.0f} {row['peak_mib']:10.0f}"
            f" {row['steps']:6} {row['loss']:10.4f}"
        )


def options_of_sides(description: str | None) -> argparse.Namespace:
    """What both sides are given."""
    parser = options_of(description)
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
    parser.add_argument("--rank", type=int, default=0, help="of adapters on all linear layers; 0: all weights")
    return parser.parse_args()


def make_base(folder: Path, options: argparse.Namespace) -> ChatTemplate:
    """A model with random weights, and a tokenizer trained on the records."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = on_bytes(Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(vocab_size=options.vocabulary - 4, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator((text for parts in records(options) for text in texts(parts)), trainer)
    add_special_tokens(tokenizer, DEFAULT)
    template = ChatTemplate(DEFAULT, tokenizer)
    stop = template.stop_token()
    assert stop is not None
    shape = ModelShape.model_validate(
        {
            "architecture": "llama", "layers": options.layers, "width": options.width, "heads": options.width // 64,
            "kv_heads": options.width // 64, "ffn_width": 8 * options.width // 3 // 64 * 64, "context": options.context,
        }
    )  # fmt: skip
    export_random(folder / "base", shape, tokenizer, seed=0, chat=ChatFiles(template.exported, stop))
    return template


def records(options: argparse.Namespace) -> Iterator[dict[str, Messages]]:
    """The prompt and its answers, as messages, from the file."""
    for source in open_sources([AlignmentData(uri=options.data)], open_store):
        for record in source.records(lambda error: print(error, file=sys.stderr)):
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


def ours_before(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """What our evaluation before the first step finds of the records to compare."""
    data = [{"uri": str(compared(folder))}]
    _, product = trained(folder, "before", options, data=data, validation={"data": data}, length={"steps": 1})
    found = json.loads(product.get(MANIFEST))["evaluation"]
    return {name: found[f"{ours}_before"] for ours, name in compared_figures(options).items()}


def trl_before(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """What TRL logs of its first step, which has all the records to compare."""
    _, found = trl_trained(folder, options, compared(folder), micro_batch=1, accumulation=COMPARED)
    return {name: found["first"][name] for name in compared_figures(options).values()}


def compared(folder: Path) -> Path:
    """The file of the records of which both sides have to find the same."""
    path = folder / "compared.jsonl"
    path.write_text("".join((folder / "records.jsonl").read_text().splitlines(keepends=True)[:COMPARED]))
    return path


def compared_figures(options: argparse.Namespace) -> dict[str, str]:
    """Our name of each figure that is compared, and TRL's."""
    both = ("logps/chosen", "logps/rejected")
    return {name: name for name in both} if options.method == "dpo" else {"validation_loss": "loss"}


def check_same(ours: dict[str, float], theirs: dict[str, float]) -> None:
    """Measure nothing where the sides compute different things."""
    if different := {name for name in ours if abs(ours[name] - theirs[name]) > TOLERANCE * abs(ours[name])}:
        sys.exit(f"before the first step {', '.join(sorted(different))} differ: {ours} here, {theirs} of TRL")


def ours(folder: Path, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch of ours."""
    data = [{"uri": str(folder / "records.jsonl")}]
    usage, product = trained(folder, "epoch", options, data=data, validation={"fraction": 0}, length={"epochs": 1})
    steps = [row for row in map(json.loads, product.get("metrics.jsonl").splitlines()) if "loss" in row]
    return _row([row["step_seconds"] for row in steps], count / len(steps), usage, count, steps[-1]["loss"])


def trained(
    folder: Path, name: str, options: argparse.Namespace, *, data: Any, validation: Any, length: dict[str, int]
) -> tuple[Usage, ObjectStore]:
    """A run of ours: what it took, and its product."""
    sequences = ACCUMULATION * options.micro_batch
    spec = {
        "base": {"uri": str(folder / "base")},
        "method": {options.method: {}},
        "data": data,
        "validation": validation,
        "training": {
            **length,
            "batch": {"tokens": sequences * options.context, "microBatch": options.micro_batch},
            "precision": "fp32",
        },
        "evaluation": {"every": 10**6, "batches": 10**4, "prompts": []},
        "checkpoint": {"every": "1h"},
    }
    if options.rank:
        spec["adapter"] = {"lora": {"rank": options.rank, "alpha": 2 * options.rank}}
    run = AlignmentRunFile(
        name="bench", key=key_of([name, options.rank]), output=StorageSpec(uri=(folder / "store").as_uri()),
        spec=AlignmentRunSpec.model_validate(spec, strict=False), base=Input(uri=str(folder / "base")),
    )  # fmt: skip
    (folder / "run.json").write_bytes(canonical_json(run.document()))
    progress = folder / f"{name}.progress.json"
    command = [sys.executable, "-m", "kindling_trainer", str(folder / "run.json"), "--progress", str(progress)]
    usage = measured(command, environment(options))
    result = Progress.model_validate_json(progress.read_bytes()).result
    assert result is not None
    return usage, open_store(result.uri)


def trl(folder: Path, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One epoch of TRL's."""
    usage, found = trl_trained(
        folder, options, folder / "records.jsonl", micro_batch=options.micro_batch, accumulation=ACCUMULATION
    )
    return _row(found["step_seconds"], options.micro_batch * ACCUMULATION, usage, count, found["last"]["loss"])


def trl_trained(
    folder: Path, options: argparse.Namespace, records: Path, *, micro_batch: int, accumulation: int
) -> tuple[Usage, dict[str, Any]]:
    """A run of TRL's: what it took, and what it logged."""
    out = folder / "trl.json"
    script = Path(__file__).with_name("trl_side.py")
    sizes = [str(size) for size in (micro_batch, accumulation, options.context, options.rank)]
    command = [options.trl_python, str(script), options.method, str(folder / "base"), str(records), str(out), *sizes]
    return measured(command, environment(options)), json.loads(out.read_text())


def environment(options: argparse.Namespace) -> dict[str, str]:
    """Of both sides."""
    return {"OMP_NUM_THREADS": str(options.threads), "TOKENIZERS_PARALLELISM": "true"}


def _row(steps: list[float], samples: float, usage: Usage, count: int, loss: float) -> dict[str, float]:
    counted = steps[WARM_UP:] or steps
    return {
        "samples_per_second": samples * len(counted) / sum(counted),
        "whole": count / usage.seconds,
        "peak_mib": usage.peak_mebibytes,
        "cpu_seconds": usage.cpu_seconds,
        "steps": len(steps),
        "loss": loss,
    }


if __name__ == "__main__":
    main()
