"""What a small model learns from real data, through Kindling's own documents, on two cores.

    python bench/align/real_data.py --dialogues harmless-base-test.jsonl.gz --problems gsm8k/train.jsonl
        [--show sft dpo reward] [--toy] [--store FOLDER] [--json FILE]

All begin with one model, pretrained for a moment on the dialogues' text, chosen and rejected alike: no preference is in
it, though the text of the pairs that are held out later is. Then:

sft     fine-tuning on worked problems, which the base has never seen: the loss of those held out, one in thirty.
dpo     fine-tuning on chosen answers, then DPO, on four fifths of the pairs: how many of the last fifth are preferred.
reward  a reward model on each four fifths of the pairs, measured on the other fifth. It sees the answers without the
        questions, as the bag of words does to which it is compared. No peer is run.

A pair is the last question with its two answers. Dialogues that begin with the same question are in the same fifth.
With a store that stays, what is finished is used again.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

from kindling_api.v1alpha1.alignment_run import AlignmentData
from kindling_api.v1alpha1.products import MODEL_FOLDER
from kindling_storage import open_store
from kindling_trainer.align.data.read import open_sources
from kindling_trainer.align.data.tokenize import read_pairs
from kindling_trainer.chat.template import ChatTemplate
from kindling_trainer.checkpoint.huggingface import read_chat_template, read_model, read_tokenizer

NO_QUESTION = "?"
"""The prompt of answers that are compared without theirs."""
FOLDS = 5
SHOWS = ("sft", "dpo", "reward")
BASE = """\
apiVersion: kindling.dev/v1alpha1
kind: DatasetBuild
metadata: {{name: dialogues}}
spec:
  sources: [{{uri: "{dialogues}", textField: chosen}}, {{uri: "{dialogues}", textField: rejected}}]
  filters: []
  deduplicate: {{exact: true}}
  tokenizer: {{train: {{vocabSize: 2048}}}}
  validation: {{fraction: 0.05}}
---
apiVersion: kindling.dev/v1alpha1
kind: PretrainRun
metadata: {{name: dialogues}}
spec:
  dataset: {{name: dialogues}}
  model: {{architecture: llama, layers: 4, heads: 4, width: 128, context: 512, tiedEmbeddings: true}}
  training:
    steps: {steps}
    batch: {{tokens: 4Ki}}
    compile: never
    optimizer: {{adamW: {{learningRate: 3e-3, betas: [0.9, 0.99]}}}}
  resources: {{cpu: "2"}}
  evaluation: {{every: 100, batches: 4}}
"""
ALIGNMENT = """\
---
apiVersion: kindling.dev/v1alpha1
kind: AlignmentRun
metadata: {{name: {name}}}
spec:
  base: {{name: {base}}}
  method: {{{method}: {{}}}}
  data: {data}
  validation: {validation}
  training:
    {length}
    batch: {{tokens: {tokens}}}
    compile: never
    optimizer: {{adamW: {{learningRate: {rate}}}}}
    schedule: {{cosine: {{warmupFraction: 0.1}}}}
  resources: {{cpu: "2"}}
  evaluation: {{every: 10000, batches: 10000}}
"""


def main() -> None:
    """Run the documents, and tell what came out."""
    options = _options()
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as scratch:
        folder = Path(scratch)
        bench = Bench(options, folder, options.store or folder / "store")
        rows = [row for show in options.show for row in getattr(bench, show)()]
    print(f"{'':7} {'figure':45} {'before':>8} {'after':>8}")
    for row in rows:
        before = f"{row['before']:8.4f}" if row["before"] is not None else f"{'':8}"
        print(f"{row['show']:7} {row['figure']:45} {before} {row['after']:8.4f}  {row['remark']}")
    write_figures(options.json, {"rows": rows})


class Bench:
    """The three shows, over one store."""

    def __init__(self, options: argparse.Namespace, folder: Path, store: Path) -> None:
        self.options, self.store = options, store
        self.folder = store.parent / f"{store.name}-data" if options.store else folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folds = write_folds(options.dialogues, self.folder)
        self.documents = {
            "dialogues": BASE.format(dialogues=options.dialogues.resolve(), steps=3 if options.toy else 300)
        }
        """Each model's own, after those of all that it needs."""

    def sft(self) -> Iterator[dict[str, Any]]:
        """How much of the loss on held-out problems goes."""
        problems = [self.options.problems.resolve()]
        found = self.run(
            "problems",
            "dialogues",
            "sft",
            problems,
            "{fraction: 0.03}",
            self.length("steps: 40"),
            rate="2e-3",
            tokens="4Ki",
        )
        before, after = found["validation_loss_before"], found["validation_loss"]
        yield _row("sft", "loss on held-out problems, nats a token", before, after, f"{after / before - 1:+.1%}")

    def dpo(self) -> Iterator[dict[str, Any]]:
        """How often the held-out chosen answer is preferred to the rejected one."""
        held_out, base = self.folds[0], self.talking(0)
        validation = _held_out(held_out)
        found = self.run(
            "preferring", base, "dpo", self.all_but(0), validation, self.length("epochs: 2"), rate="3e-4", tokens="8Ki"
        )
        yield _row("dpo", "held-out accuracy of the implicit rewards", 0.5, found["rewards/accuracies"])
        before, after = (preferred(self.model(name), held_out) for name in (base, "preferring"))
        yield _row("dpo", "chosen answer more probable, held out", before, after)

    def reward(self) -> Iterator[dict[str, Any]]:
        """How often the reward model gives the chosen answer more, pairs it has not seen, over all fifths."""
        accuracies, fifths = [], self.folds[:1] if self.options.toy else self.folds
        for number, held_out in enumerate(fifths):
            training, length = self.all_but(number), self.length(f"epochs: {self.options.epochs}")
            found = self.run(
                f"reward-model-{number}", "dialogues", "reward", list(map(_answers, training)),
                _held_out(_answers(held_out)),
                length, rate=self.options.rate, tokens="4Ki",
            )  # fmt: skip
            accuracies.append(found["rewards/accuracies"])
            print(f"fifth {number}: {accuracies[-1]:.4f}", file=sys.stderr)
        mean = sum(accuracies) / len(fifths)
        error = math.sqrt(mean * (1 - mean) / sum(fold.read_text().count("\n") for fold in fifths))
        yield _row("reward", "accuracy of a reward model, mean of the fifths", None, mean, f"± {error:.4f}")

    def talking(self, fold: int) -> str:
        """The name of a model that was fine-tuned on the chosen answers of all fifths but one."""
        name, validation = f"talk-{fold}", _held_out(self.folds[fold])
        self.run(
            name,
            "dialogues",
            "sft",
            self.all_but(fold),
            validation,
            self.length("epochs: 1"),
            rate="5e-4",
            tokens="4Ki",
        )
        return name

    def length(self, wanted: str) -> str:
        """How long an alignment takes, unless all are to be short."""
        return "steps: 2" if self.options.toy else wanted

    def all_but(self, fold: int) -> list[Path]:
        """The fifths to train on while this one is held out."""
        return [path for number, path in enumerate(self.folds) if number != fold]

    def run(
        self, name: str, base: str, method: str, training: list[Path], validation: str, length: str, **recipe: str
    ) -> dict[str, float]:
        """One alignment after what it needs, as its user runs it: the figures of its last evaluation."""
        data = json.dumps([{"uri": str(path)} for path in training])
        self.documents[name] = self.documents[base] + ALIGNMENT.format(
            name=name, base=base, method=method, data=data, validation=validation, length=length, **recipe
        )
        file = self.folder / "recipe.yaml"
        file.write_text(self.documents[name])
        command = [sys.executable, "-m", "kindling_cli.main", "run", str(file), "--store", str(self.store)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        evaluation: dict[str, float] = json.loads((self.product(name) / "manifest.json").read_text())["evaluation"]
        return evaluation

    def product(self, name: str) -> Path:
        """The folder of a finished alignment."""
        entry = self.store / "names" / "AlignmentRun" / "default" / f"{name}.json"
        return Path(json.loads(entry.read_text())["uri"].removeprefix("file://"))

    def model(self, name: str) -> Path:
        """The Hugging Face folder of a finished alignment."""
        return self.product(name) / MODEL_FOLDER


def write_folds(dialogues: Path, folder: Path) -> list[Path]:
    """The pairs in fifths, each a file."""
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    with gzip.open(dialogues, "rt") as lines:
        for line in lines:
            chosen, rejected = (json.loads(line)[name] for name in ("chosen", "rejected"))
            asked, answer = chosen.rsplit("\n\nAssistant:", 1)
            pair = {
                "prompt": asked.rsplit("\n\nHuman:", 1)[-1].strip(),
                "chosen": answer.strip(),
                "rejected": rejected.rsplit("\n\nAssistant:", 1)[-1].strip(),
            }
            if all(pair.values()) and pair["chosen"] != pair["rejected"]:
                first_question = asked.split("\n\nAssistant:", 1)[0]
                folds[zlib.crc32(first_question.encode()) % FOLDS].append(json.dumps(pair) + "\n")
    paths = [folder / f"fold-{number}.jsonl" for number in range(FOLDS)]
    for path, fold in zip(paths, folds, strict=True):
        path.write_text("".join(fold))
        pairs = map(json.loads, fold)
        answers = [json.dumps(pair | {"prompt": NO_QUESTION}) + "\n" for pair in pairs]
        _answers(path).write_text("".join(answers))
    return paths


def _answers(fold: Path) -> Path:
    """Its pairs without their questions."""
    return fold.with_name(f"answers-of-{fold.name}")


@torch.no_grad()
def preferred(model_folder: Path, pairs: Path) -> float:
    """The part of the pairs whose chosen answer a model finds more probable than the rejected one."""
    store = open_store(model_folder.as_uri())
    model, (tokenizer, special), source = read_model(store), read_tokenizer(store), read_chat_template(store)
    assert source is not None
    template = ChatTemplate(source, tokenizer, special.named)
    read, _ = read_pairs(
        open_sources([AlignmentData(uri=str(pairs))], open_store), template, context=model.shape.context
    )
    right = 0.0
    for number in range(len(read)):
        chosen, rejected = (
            _log_probability(model, answers[number].tokens, answers[number].counted)
            for answers in (read.chosen, read.rejected)
        )
        right += 1.0 if chosen > rejected else 0.5 * (chosen == rejected)
    return right / len(read)


def _log_probability(model: Any, tokens: Any, counted: Any) -> float:
    """Of the counted tokens, in nats."""
    sequence = torch.from_numpy(tokens).long()
    each = model(sequence[None, :-1])[0].float().log_softmax(-1).gather(1, sequence[1:, None])[:, 0]
    return float(each[torch.from_numpy(counted[1:])].sum())


def _held_out(fold: Path) -> str:
    return json.dumps({"data": [{"uri": str(fold)}]})


def _row(show: str, figure: str, before: float | None, after: float, remark: str = "") -> dict[str, Any]:
    return {"show": show, "figure": figure, "before": before, "after": after, "remark": remark}


def _options() -> argparse.Namespace:
    parser = options_of(__doc__)
    parser.add_argument("--dialogues", type=Path, required=True, help="pairs of dialogues of hh-rlhf, .jsonl.gz")
    parser.add_argument("--problems", type=Path, required=True, help="worked problems of GSM8K, .jsonl")
    parser.add_argument("--show", nargs="+", choices=SHOWS, default=list(SHOWS))
    parser.add_argument("--store", type=Path, help="where the products stay; absent means nowhere")
    parser.add_argument("--toy", action="store_true", help="a few steps, one fifth: to see that the path works")
    parser.add_argument("--rate", default="3e-4", help="learning rate of the reward model")
    parser.add_argument("--epochs", default="2", help="passes of the reward model over its pairs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
