"""`kindling toxicity train` and `evaluate`: their options and help, as in `main`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train and evaluate toxicity classifiers, for spec.toxicity.model.", no_args_is_help=True)

Labelled = Annotated[list[Path], typer.Argument(metavar="DATA…", help="Labelled texts: CSV with a header, or JSONL.")]
TextField = Annotated[str, typer.Option("--text", metavar="FIELD", help="The field that holds the text.")]
LabelField = Annotated[str, typer.Option("--label", metavar="FIELD", help="The field that holds the label.")]
ToxicLabels = Annotated[
    list[str],
    typer.Option(
        "--toxic",
        metavar="VALUE",
        help="A label that means toxic; without it, labels are numbers from 0 to 1. Repeatable.",
    ),
]


@app.command("train")
def train(
    data: Labelled,
    folder: Annotated[Path, typer.Option("--output", metavar="FOLDER", help="Where model and card are written.")],
    text: TextField = "text",
    label: LabelField = "label",
    toxic: ToxicLabels = [],  # noqa: B006
    about: Annotated[
        list[str], typer.Option(metavar="TEXT", help="What the examples are, for the card. Repeatable.")
    ] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Learn from labelled texts; a fifth of them is held out, and the model card says how good the model is on those.

    \b
    Examples:
      kindling toxicity train jigsaw/train.csv --text comment_text --label toxic --output ./toxicity
      kindling toxicity train tweets.csv --text tweet --label class --toxic 0 --toxic 1 --output ./toxicity
    """
    from kindling_cli.commands.toxicity import train_model

    train_model(data, folder, text=text, label=label, toxic=toxic, about=about, as_json=json)


@app.command("evaluate")
def evaluate(
    data: Labelled,
    model: Annotated[str, typer.Option(metavar="URI", help="builtin, or what `toxicity train` wrote.")] = "builtin",
    text: TextField = "text",
    label: LabelField = "label",
    toxic: ToxicLabels = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Say how good a model is on labelled texts: ROC-AUC, precision and recall by threshold, calibration.

    Give texts that the model was not trained on: all of them count.

    \b
    Examples:
      kindling toxicity evaluate jigsaw/test.csv --text comment_text --label toxic
      kindling toxicity evaluate test.jsonl --model ./toxicity
    """
    from kindling_cli.commands.toxicity import evaluate_model

    evaluate_model(data, model=model, text=text, label=label, toxic=toxic, as_json=json)
