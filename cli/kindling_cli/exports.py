"""The subcommands that hand a product on: to other programs, and to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from kindling_api.errors import SpecError, explain
from kindling_cli import DEFAULT_STORE
from kindling_cli.options import Model, Store


def export(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A model or, for llmc and nanogpt, a dataset: a name, folder or URI.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    store: Store = DEFAULT_STORE,
    to: Annotated[
        Literal["huggingface", "peft", "gguf", "llmc", "nanogpt"],
        typer.Option(
            help="For a model huggingface, peft (its adapters) or gguf (llama.cpp); for a dataset llmc or nanogpt."
        ),
    ] = "huggingface",
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"] | None,
        typer.Option(help="Of a model's weights; as they are, which after training is float32, unless given."),
    ] = None,
) -> None:
    """Write a model as AutoModelForCausalLM and AutoTokenizer load it, or llama.cpp, or its adapters, or a dataset.

    \b
    Examples:
      kindling export quickstart ./quickstart-hf --dtype bfloat16
      kindling export kindling-store/models/0123456789abcdef/checkpoints/step-00000200-a1 ./at-200
      kindling export quickstart ./quickstart-gguf --to gguf
      kindling export assistant ./assistant-adapter --to peft
      kindling export quickstart ./data --to llmc
    """
    if to == "huggingface":
        from kindling_cli.commands.export import export_model

        export_model(what, folder, store=store, dtype=dtype)
    elif to == "gguf":
        from kindling_cli.commands.export import export_gguf

        export_gguf(what, folder, store=store, dtype=dtype)
    elif dtype is not None:
        allowed, remedy = (
            "a whole model",
            "leave --dtype out: adapters are float32, tokens as they are read",
        )
        raise SpecError(explain("--dtype", found=f"{dtype} with --to {to}", allowed=allowed, remedy=remedy))
    elif to == "peft":
        from kindling_cli.commands.export import export_adapters

        export_adapters(what, folder, store=store)
    else:
        from kindling_cli.commands.export_data import export_data

        export_data(what, folder, to, store=store)


def push(
    model: Model,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Where: hf://owner/name, or hf://owner/name@branch.")],
    store: Store = DEFAULT_STORE,
    private: Annotated[
        bool, typer.Option("--private", help="A repository that is made for it is seen by its owner alone.")
    ] = False,
) -> None:
    """Put a model on the Hugging Face Hub, in one commit; HF_TOKEN holds a token that may write there.

    \b
    Examples:
      kindling push quickstart hf://me/quickstart --private
    """
    from kindling_cli.commands.push import push_model

    push_model(model, target, store=store, private=private)
