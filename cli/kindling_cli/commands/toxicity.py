"""`kindling toxicity`: train a classifier on labelled texts, and evaluate one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from kindling_cli.product_folders import file_uri
from kindling_storage import open_store
from kindling_toxicity.model import MODEL_FILE, fetch, load
from kindling_toxicity.training.card import card, figures
from kindling_toxicity.training.examples import check_enough, read_examples
from kindling_toxicity.training.train import evaluate, split, train

CARD_FILE = "README.md"
FEWEST = 10
"""Texts of each class in each part of the split."""


def train_model(
    data: Sequence[Path],
    folder: Path,
    *,
    text: str,
    label: str,
    toxic: Sequence[str],
    about: Sequence[str],
    as_json: bool = False,
) -> None:
    """Learn from the examples in `data`, and write model and card into `folder`; an existing model is replaced.

    Raises:
        DataError: the examples cannot be read, or are too few.
        StorageError: the folder cannot be written.
    """
    examples = read_examples(data, text=text, label=label, toxic=toxic)
    learning, calibrating, evaluating = split(examples.texts)
    for part in (learning, calibrating, evaluating):
        check_enough(examples.take(part), FEWEST)
    model = train(examples.take(learning), examples.take(calibrating))
    evaluation = evaluate(model, examples.take(evaluating))
    store = open_store(file_uri(folder))
    sources = about or [f"{path.name}: `{text}`, labelled by `{label}`" for path in data]
    store.put(CARD_FILE, card("Toxicity classifier", sources, int((~evaluating).sum()), evaluation).encode())
    store.put(MODEL_FILE, model.to_bytes())
    if as_json:
        print(json.dumps({"folder": str(folder), **asdict(evaluation)}, indent=2))
        return
    print("\n".join(["On texts held out:", "", *figures(evaluation)]))
    print(f"\nThe model and its card are in {folder}; name it as spec.toxicity.model.")


def evaluate_model(
    data: Sequence[Path], *, model: str, text: str, label: str, toxic: Sequence[str], as_json: bool
) -> None:
    """Print the figures of a model on all examples in `data`; those that it was trained on flatter it.

    Raises:
        SpecError: there is no such model.
        DataError: the examples cannot be read, or are all of one class.
    """
    examples = read_examples(data, text=text, label=label, toxic=toxic)
    check_enough(examples, fewest=1)
    evaluation = evaluate(load(fetch(model, open_store), model), examples)
    print(json.dumps(asdict(evaluation), indent=2) if as_json else "\n".join(figures(evaluation)))
