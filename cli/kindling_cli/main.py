"""The `kindling` command: every subcommand with its options and help, and how errors become messages and exit codes.

The bodies are one call each, imported where they are used, so that help and usage errors need neither pydantic nor
torch.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

from kindling_api import __version__
from kindling_api.errors import EXIT_USER, KindlingError
from kindling_cli import DEFAULT_STORE
from kindling_cli.datasets import similar, whatif
from kindling_cli.exports import export, push
from kindling_cli.options import Files, MaxTokens, Model, Penalty, Seed, Sets, Store, Temperature, TopK, TopP
from kindling_cli.store_commands import list_, prune
from kindling_cli.toxicity import app as toxicity

app = typer.Typer(
    help="From raw text to an aligned language model, by declaration.",
    epilog="Exit codes: 0 done, 2 the input is at fault, 1 a fault of Kindling's, 130 stopped by Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXTRAS = {
    "torch": "trainer",
    "safetensors": "trainer",
    "ray": "dataprep",
    "pyarrow": "dataprep",
    "tokenizers": "dataprep",
    "datasketch": "dataprep",
    "boto3": "storage",
    "botocore": "storage",
    "huggingface_hub": "storage",
    "gradio": "serve",
    "prometheus_client": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}
"""Which extra of the distribution brings which package."""


def main() -> None:
    """Run the command line; errors of ours become one message and an exit code, anything else keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to fail
    try:
        app(prog_name="kindling")
    except KindlingError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        remedy = f"pip install 'kindling[{EXTRAS[package]}]'"
        _complain(f"{package} is not installed, and this command needs it. To fix it: {remedy}.")
        sys.exit(EXIT_USER)


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    first, *rest = message.splitlines() or [""]
    text = Text.assemble(("error: ", "bold red"), (first, "red"), *("\n" + line for line in rest))
    Console(stderr=True).print(text, soft_wrap=True)


def _version(asked: bool) -> None:
    if asked:
        print(f"kindling {__version__}")
        raise typer.Exit


@app.callback()
def kindling(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """From raw text to an aligned language model, by declaration."""


@app.command()
def run(
    files: Files,
    store: Store = DEFAULT_STORE,
    only: Annotated[
        list[str], typer.Option(metavar="NAME", help="Run only this document (name or Kind/name). Repeatable.")
    ] = [],  # noqa: B006
    set_: Sets = [],  # noqa: B006
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="At the end, let the model continue this text; '' asks for nothing."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show more of a failed process' log.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was made as JSON, and all else on stderr.")] = False,
) -> None:
    """Run documents, in the order in which they need one another; what is finished is used again.

    Ctrl-C stops the run after it has saved what there is; the same command continues it.

    \b
    Examples:
      kindling run examples/01-quickstart
      kindling run data.yaml model.yaml --store s3://llm/first
      kindling run examples/01-quickstart --only PretrainRun/quickstart --prompt "def"
      kindling run examples/01-quickstart --set PretrainRun/quickstart:spec.training.steps=50
    """
    from kindling_cli.commands.run import run_files

    raise typer.Exit(
        run_files(files, store=store, only=only, overrides=set_, prompt=prompt, verbose=verbose, as_json=json)
    )


@app.command()
def plan(
    files: Files,
    store: Store = DEFAULT_STORE,
    set_: Sets = [],  # noqa: B006
    flops_per_second: Annotated[
        float | None,
        typer.Option(
            "--flops",
            metavar="N",
            min=1,
            help="FLOP/s of one process, for the estimate of time; measured on this CPU if absent.",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Say what `kindling run` would do: order, sizes, memory, arithmetic, time. Nothing is started or written.

    \b
    Examples:
      kindling plan examples/01-quickstart
      kindling plan llama.yaml --flops 4e14
      kindling plan llama.yaml --set PretrainRun/llama:spec.parallelism.tensor=4 --json
    """
    from kindling_cli.commands.plan import plan_files

    plan_files(files, store=store, overrides=set_, flops_per_second=flops_per_second, as_json=json)


@app.command()
def render(
    files: Files,
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The operator's settings.json; without it, those of an empty installation."),
    ] = None,
) -> None:
    """Print the Kubernetes objects that the operator would make of documents. No cluster is needed or asked.

    \b
    Examples:
      kindling render examples/01-quickstart
      kindling render llama.yaml --settings settings.json | kubectl apply --dry-run=server -f -
    """
    from kindling_cli.commands.render import render_files

    render_files(files, settings=settings)


@app.command()
def inspect(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="A name in the store, or the folder or URI of a product.")
    ],
    store: Store = DEFAULT_STORE,
    kept: Annotated[bool, typer.Option("--kept", help="List documents of a dataset that stayed.")] = False,
    removed: Annotated[bool, typer.Option("--removed", help="List its removed documents, with the reason.")] = False,
    rule: Annotated[str | None, typer.Option(metavar="RULE", help="List the documents that this rule removed.")] = None,
    shard: Annotated[
        str | None, typer.Option(metavar="NAME", help="Decode a document of this shard, as in train-00000.")
    ] = None,
    document: Annotated[int, typer.Option(metavar="N", min=0, help="With --shard: which document, from 0.")] = 0,
    step: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="List the documents that this step of a pretraining read.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Most entries to list.")] = 20,
    verify: Annotated[bool, typer.Option("--verify", help="Compute every file's digest again.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print a training's newest figures, then each that comes.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the manifest, or what is listed, as JSON.")] = False,
) -> None:
    """Look into a dataset, a model or a checkpoint: what is in it, where it came from, whether it is whole.

    With --follow, see a training from another terminal, until it ends: 0 where it is finished, else 1.

    \b
    Examples:
      kindling inspect quickstart
      kindling inspect quickstart --follow
      kindling inspect DatasetBuild/quickstart --rule minHash --limit 5
      kindling inspect DatasetBuild/quickstart --shard train-00000 --document 3
      kindling inspect DatasetBuild/quickstart --removed --limit 1000 --json
      kindling inspect kindling-store/models/0123456789abcdef --verify
      kindling inspect PretrainRun/quickstart --step 122
    """
    if follow:
        from kindling_cli.commands.follow import follow_run

        if kept or removed or rule is not None or shard is not None or step is not None or verify:
            raise typer.BadParameter("it goes with --store, --limit and --json alone", param_hint="--follow")
        raise typer.Exit(follow_run(what, store=store, limit=limit, as_json=json))
    if step is not None:
        from kindling_cli.commands.inspect_step import show_step

        show_step(what, step, store=store, limit=limit, as_json=json)
        return
    from kindling_cli.commands.inspect import inspect_product

    inspect_product(
        what,
        store=store,
        kept=kept,
        removed=removed,
        rule=rule,
        shard=shard,
        document=document,
        limit=limit,
        verify=verify,
        as_json=json,
    )


app.command()(whatif)
app.command()(similar)
app.command("list")(list_)
app.command()(prune)


@app.command()
def generate(
    model: Model,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="What the model continues; - reads it from stdin.")],
    store: Store = DEFAULT_STORE,
    max_tokens: MaxTokens = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest token.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print prompt and continuation as JSON, at the end.")] = False,
) -> None:
    """Let a model continue a text, token by token as it comes.

    \b
    Examples:
      kindling generate quickstart --prompt "def read("
      kindling generate quickstart --prompt "import " --greedy --max-tokens 64
      kindling generate ./exported --prompt "class " --temperature 0.6 --top-p 0.9 --seed 1
    """
    from kindling_cli.commands.generate import generate_text

    generate_text(
        model,
        prompt,
        store=store,
        as_json=json,
        max_tokens=max_tokens,
        temperature=0.0 if greedy else temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )


@app.command()
def chat(
    model: Model,
    store: Store = DEFAULT_STORE,
    max_tokens: MaxTokens = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = None,
    top_p: TopP = None,
    repetition_penalty: Penalty = 1.0,
    seed: Seed = None,
) -> None:
    """Talk to a model at the terminal. A base model only continues what you write; /help lists the commands.

    \b
    Examples:
      kindling chat quickstart
      kindling chat ./exported --temperature 0.6
    """
    from kindling_cli.commands.chat import converse

    converse(
        model,
        store=store,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )


@app.command()
def serve(
    model: Model,
    store: Store = DEFAULT_STORE,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="The port; 0 takes any free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="The model's name in requests; by default MODEL's last part.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Whether there is a chat page.")] = True,
    slots: Annotated[int, typer.Option(metavar="N", min=1, help="Most answers at the same time; others wait.")] = 16,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Most tokens that an answer may have.")] = 4096,
    origins: Annotated[list[str], typer.Option("--allow-origin", help="A page's address that may use it, or *.")] = [],  # noqa: B006
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="cpu, in fp32, or cuda, a GPU, in bfloat16.")] = "cpu",
    adapters: Annotated[
        list[str],
        typer.Option("--adapter", metavar="NAME=PATH", help="A PEFT folder for MODEL, and its name; repeatable."),
    ] = [],  # noqa: B006
    prefix_cache: Annotated[
        int, typer.Option(metavar="MIB", min=0, help="Memory for what was read of earlier dialogues; 0 for none.")
    ] = 256,
) -> None:
    """Serve a model: an OpenAI-compatible endpoint and a chat page. Clients must send KINDLING_API_KEY where it is set.

    \b
    Examples:
      kindling serve quickstart
      kindling serve ./base --adapter tuned=./tuned-adapter --adapter terse=./terse-adapter
      KINDLING_API_KEY=secret kindling serve ./exported --host 0.0.0.0 --port 9000
    """
    from kindling_cli.commands.serve import serve_model

    limits = {"slots": slots, "max_tokens": max_tokens}
    serve_model(
        model, store=store, host=host, port=port, name=name, page=page, origins=origins, adapters=adapters,
        device=device, prefix_cache=prefix_cache, **limits,
    )  # fmt: skip


app.command()(export)
app.command()(push)
app.add_typer(toxicity, name="toxicity")


if __name__ == "__main__":
    main()
