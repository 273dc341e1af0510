"""Arguments and options that several commands have, with their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Files = Annotated[
    list[Path], typer.Argument(metavar="FILE|FOLDER…", help="YAML documents; a folder means its *.yaml files.")
]
Store = Annotated[
    str,
    typer.Option("--store", metavar="URI", help="Where products are kept: a folder, file:// or s3://bucket/prefix."),
]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="NAME:FIELD=VALUE",
        help="Change one field of one document, as in PretrainRun/tiny:spec.training.steps=50. Repeatable.",
    ),
]
Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A name in the store, a model folder, a checkpoint folder, or a URI.")
]
MaxTokens = Annotated[int, typer.Option(metavar="N", min=1, help="Most tokens to generate.")]
Temperature = Annotated[float, typer.Option(metavar="T", min=0, help="0 is greedy; higher is wilder.")]
TopK = Annotated[int | None, typer.Option(metavar="K", min=1, help="Draw from the K likeliest tokens.")]
TopP = Annotated[
    float | None,
    typer.Option(metavar="P", min=0, max=1, help="Draw from the likeliest tokens of total probability P."),
]
Penalty = Annotated[
    float, typer.Option("--repetition-penalty", metavar="R", min=1, help="Above 1, repeats are less likely.")
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="The same seed gives the same text.")]
