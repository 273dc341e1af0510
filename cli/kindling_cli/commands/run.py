"""`kindling run`: from documents to finished products, and a first sentence from the model at the end."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_cli import DEFAULT_STORE
from kindling_cli.figures import counted, duration
from kindling_cli.flow import Flow, Interrupts, check_runnable, finished_product
from kindling_cli.load import choose, load_with_places
from kindling_cli.machine import this_machine
from kindling_cli.planner import Plan, Planner
from kindling_cli.plans import DatasetPlan, length_of
from kindling_cli.product_folders import shown, storage_of
from kindling_cli.revisions import pin_revisions
from kindling_cli.rows import StageRow
from kindling_cli.screen import screen_for
from kindling_runtime.signals import Stopped
from kindling_storage import open_store
from kindling_trainer.telemetry.metrics import METRICS, rows_of

DEFAULT_PROMPT = "def"
DEFAULT_QUESTION = "Hello!"
WIDEST_SAMPLE = 60
"""Characters of a prompt, and of what the model says to it."""


def run_files(
    files: Sequence[Path],
    *,
    store: str,
    only: Sequence[str],
    overrides: Sequence[str],
    prompt: str | None,
    verbose: bool,
    as_json: bool = False,
) -> int:
    """Run the documents and return the exit code.

    Args:
        as_json: whether what was made is printed as JSON, and all else on stderr.

    Raises:
        KindlingError: the documents are wrong, or a stage failed.
    """
    console = Console(highlight=False, stderr=as_json)
    storage = storage_of(store)
    documents, places = load_with_places(files, overrides)
    with places.named():
        ordered = order(documents, exists=lambda reference: finished_product(storage, reference) is not None)
        chosen = pin_revisions(choose(ordered, only))
        check_runnable(chosen, storage)
        plans = _plan_all(chosen, storage)
    console.print(Text(f"{len(chosen)} of {counted(len(documents), 'document')}, kept in {shown(storage.uri)}", "dim"))
    _print_lengths(console, plans)
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
    if as_json:
        print(json.dumps([_document(row) for row in flow.rows], indent=2, ensure_ascii=False))
        return EXIT_DONE
    prompts = [_own_prompt(document) for document in chosen]
    _print_products(console, flow.rows, prompts, store)
    _try_model(console, flow.rows, prompts, store, prompt)
    return EXIT_DONE


def _plan_all(documents: Sequence[Document], storage: StorageSpec) -> list[Plan]:
    """The plans. What `kindling plan` refuses is refused before anything starts, the data that any names included.

    Raises:
        UserError: a document, or its data, is wrong.
    """
    planner = Planner(storage, lambda resources: None, this_machine(), running=True)
    return [planner.plan(document) for document in documents]


def _print_lengths(console: Console, plans: Sequence[Plan]) -> None:
    """How long each training will be, and what is to be said of it, before it costs."""
    for plan in plans:
        if plan.finished or isinstance(plan, DatasetPlan):
            continue
        said = ([f"steps {length}"] if (length := length_of(plan)) else []) + plan.remarks
        for sentence in said:
            console.print(Text(f"{plan.title}: {sentence}", "dim"), soft_wrap=True)


def _document(row: StageRow) -> dict[str, Any]:
    result = row.progress.result
    made = {} if result is None else result.document()
    return {"title": row.title, "state": row.state, "seconds": round(row.seconds, 1), "remarks": row.remarks, **made}


def _own_prompt(document: Document) -> str | None:
    """One that suits the model: the first of its evaluations; None for a model that scores, and generates nothing."""
    if isinstance(document, AlignmentRun) and document.spec.method.reward is not None:
        return None
    if isinstance(document, PretrainRun | AlignmentRun) and document.spec.evaluation.prompts:
        return document.spec.evaluation.prompts[0]
    return DEFAULT_QUESTION if isinstance(document, AlignmentRun) else DEFAULT_PROMPT


def _print_products(console: Console, rows: Sequence[StageRow], prompts: Sequence[str | None], store: str) -> None:
    console.print(f"Finished in {duration(sum(row.seconds for row in rows))}.", style="bold")
    for row in rows:
        result = row.progress.result
        if result is not None and open_store(result.uri).exists(REPORT):
            console.print(f"  report  {shown(result.uri)}/{REPORT}", markup=False, soft_wrap=True)
        if isinstance(result, ModelResult) and result.published is not None:
            console.print(f"  at the Hub {result.published}", markup=False, soft_wrap=True)
        if isinstance(result, ModelResult) and (said := _said(result)):
            console.print(f"  it says {said}", markup=False, soft_wrap=True)
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


def _said(result: ModelResult) -> str:
    """How the model went on when its run tried it at the end, in a line; empty where it was asked nothing."""
    run = open_store(result.uri)
    rows = rows_of(run.get(METRICS).decode()) if run.exists(METRICS) else ()
    samples = [sample for row in rows if row.get("final") for sample in row.get("samples", ())]
    return " → ".join(map(_clipped, (samples[0]["prompt"], samples[0]["text"]))) if samples else ""


def _clipped(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDEST_SAMPLE else f"{line[: WIDEST_SAMPLE - 2]} …"


def _try_model(
    console: Console, rows: Sequence[StageRow], prompts: Sequence[str | None], store: str, prompt: str | None
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
