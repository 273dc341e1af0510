"""`kindling run`: from documents to finished products, and a first sentence from the model at the end."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.prompt import Prompt
from rich.text import Text

from kindling_api.documents import Document
from kindling_api.errors import EXIT_DONE
from kindling_api.references import order
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.pretrain_run import PretrainRun
from kindling_api.v1alpha1.products import REPORT
from kindling_api.v1alpha1.status import AlignmentResult, ModelResult
from kindling_cli import DEFAULT_STORE
from kindling_cli.figures import duration
from kindling_cli.flow import Flow, Interrupts, Stopped, check_runnable, finished_product
from kindling_cli.load import choose, load_documents
from kindling_cli.places import shown, storage_of
from kindling_cli.rows import Row
from kindling_cli.screen import screen_for
from kindling_storage import open_store

DEFAULT_PROMPT = "def"
DEFAULT_QUESTION = "Hello!"


def run_files(
    files: Sequence[Path],
    *,
    store: str,
    only: Sequence[str],
    overrides: Sequence[str],
    prompt: str | None,
    verbose: bool,
) -> int:
    """Run the documents and return the exit code.

    Raises:
        KindlingError: the documents are wrong, or a stage failed.
    """
    console = Console(highlight=False)
    storage = storage_of(store)
    documents = load_documents(files, overrides)
    ordered = order(documents, exists=lambda reference: finished_product(storage, reference) is not None)
    chosen = choose(ordered, only)
    check_runnable(chosen)
    console.print(Text(f"{len(chosen)} of {len(documents)} documents, kept in {shown(storage.uri)}", "dim"))
    folder = Path(tempfile.mkdtemp(prefix="kindling-"))
    try:
        with Interrupts() as interrupts, screen_for(console) as screen:
            flow = Flow(chosen, storage=storage, screen=screen, folder=folder, verbose=verbose)
            flow.run(interrupts)
    except Stopped:
        again = shlex.join(["kindling", *sys.argv[1:]])
        console.print(f"Stopped; what is saved stays. To go on:  {again}", markup=False, soft_wrap=True)
        return interrupts.exit_code
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    prompts = [_own_prompt(document) for document in chosen]
    _farewell(console, flow.rows, prompts, store)
    _first_words(console, flow.rows, prompts, store, prompt)
    return EXIT_DONE


def _own_prompt(document: Document) -> str | None:
    """One that suits the model: the first of its evaluations; None for a model that judges, and says nothing."""
    if isinstance(document, AlignmentRun) and document.spec.method.reward is not None:
        return None
    if isinstance(document, PretrainRun | AlignmentRun) and document.spec.evaluation.prompts:
        return document.spec.evaluation.prompts[0]
    return DEFAULT_QUESTION if isinstance(document, AlignmentRun) else DEFAULT_PROMPT


def _farewell(console: Console, rows: Sequence[Row], prompts: Sequence[str | None], store: str) -> None:
    console.print(f"Finished in {duration(sum(row.seconds for row in rows))}.", style="bold")
    for row in rows:
        result = row.progress.result
        if result is not None and open_store(result.uri).exists(REPORT):
            console.print(f"  report  {shown(result.uri)}/{REPORT}", markup=False, soft_wrap=True)
    option = "" if store == DEFAULT_STORE else f" --store {shlex.quote(store)}"
    for row, prompt in zip(rows, prompts, strict=True):
        if prompt is None:
            continue
        name = row.title.partition("/")[2]
        commands = [f"kindling generate {name} --prompt {shlex.quote(prompt)}{option}"]
        if isinstance(row.progress.result, AlignmentResult):
            commands = []
        if isinstance(row.progress.result, ModelResult):
            for number, command in enumerate([*commands, f"kindling chat {name}{option}"]):
                console.print(f"  {'' if number else 'try it':6}  {command}", markup=False, soft_wrap=True)


def _first_words(
    console: Console, rows: Sequence[Row], prompts: Sequence[str | None], store: str, prompt: str | None
) -> None:
    """Let the last model made continue a prompt, or answer it where it does that: the one given, or the one that the
    reader at the terminal types."""
    results = [(row.progress.result, suited) for row, suited in zip(rows, prompts, strict=True)]
    models = [(result, suited) for result, suited in results if isinstance(result, ModelResult) and suited is not None]
    if not models or prompt == "":
        return
    model, suited = models[-1]
    answers = isinstance(model, AlignmentResult)
    if prompt is None:
        if not (console.is_terminal and sys.stdin.isatty()):
            return
        try:
            asked = "A question for the model" if answers else "A beginning for the model to continue"
            prompt = Prompt.ask(f"\n{asked}", default=suited, console=console)
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
    from kindling_cli.commands.generate import answer_text, generate_text  # not above: torch takes seconds to load

    console.print()
    (answer_text if answers else generate_text)(model.uri, prompt, store=store)
