"""`kindling inspect RUN --follow`: the curves of a training as they are written, until it ends.

They are read from the store, so that it does not matter where the training runs: beside this process, or on a cluster
that writes to the same store, with every checkpoint.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Sequence

from kindling_api.errors import EXIT_DONE, EXIT_OURS, EXIT_SIGNALLED, NotFoundError, SpecError, explain
from kindling_api.v1alpha1.products import ModelManifest
from kindling_cli.figures import counted, short_count, short_digest
from kindling_cli.product_folders import MODELS, NAME, find, shown, storage_of
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest
from kindling_storage.inventory import Item, items_of
from kindling_storage.lock import LOCK, held_by
from kindling_trainer.telemetry.metrics import EVALUATION, METRICS, Row, rows_of

POLL_SECONDS = 1.0
POLL_SECONDS_AWAY = 10.0
"""Where the store is not on this machine."""
BETWEEN_ATTEMPTS_SECONDS = 120.0
"""On a cluster the next attempt at a run has its folder after so long, at most."""
MODELS_FOLDER = "models/"
SHOWN = ("reward", "rewards/accuracies", "rewards/margins", "kl")
"""Figures of a method's step that a line has room for; the JSON has all."""


class Curves:
    """The rows of a run's metrics.jsonl, as they come."""

    def __init__(self, run: ObjectStore) -> None:
        self._run = run
        self._etag = ""
        self.rows: list[Row] = []

    def new(self) -> list[Row]:
        """Rows that have come since the last call; those of steps that a resumed run takes again are new, too.

        Raises:
            StorageError: the store cannot be read.
        """
        try:
            info = self._run.info(METRICS)
            found = list(rows_of(self._run.get(METRICS).decode())) if info.etag != self._etag else self.rows
        except NotFoundError:  # not there yet, or between two
            return []
        self._etag = info.etag
        pairs = enumerate(zip(self.rows, found, strict=False))
        same = next((number for number, (old, new) in pairs if old != new), min(len(self.rows), len(found)))
        self.rows = found
        return found[same:]


def follow_run(what: str, *, store: str, limit: int, as_json: bool) -> int:
    """Print the newest `limit` rows of what a run has written, then each that comes, and how it ended.

    Returns:
        0 where the run was finished, 1 where it ended before that, 130 after Ctrl-C.

    Raises:
        SpecError: `what` means no training.
        StorageError: the store cannot be read.
    """
    try:
        return _follow(_run_of(what, store), limit, as_json=as_json)
    except KeyboardInterrupt:
        return EXIT_SIGNALLED + signal.SIGINT


def _follow(run: ObjectStore, limit: int, *, as_json: bool) -> int:
    curves, here = Curves(run), run.local_path(METRICS) is not None
    seen = time.monotonic()
    while True:
        works = held_by(run, LOCK) is not None
        first = not curves.rows
        rows = curves.new()
        _print(rows[-limit:] if first else rows, as_json=as_json, every=first)
        if works:
            seen = time.monotonic()
        elif (manifest := read_manifest(run, ModelManifest)) is not None:
            _say_finished(manifest, as_json=as_json)
            return EXIT_DONE
        elif here or time.monotonic() - seen > BETWEEN_ATTEMPTS_SECONDS:
            _say_ended(run, curves.rows, as_json=as_json)
            return EXIT_OURS
        time.sleep(POLL_SECONDS if here else POLL_SECONDS_AWAY)


def row_line(row: Row) -> str:
    """`step 120 · loss 3.214 · learning rate 0.0003 · 38.4 K tokens/s`, or what an evaluation found."""
    parts = [f"step {row['step']:,}"]
    if "loss" not in row:
        figures = {name.removeprefix(EVALUATION): row[name] for name in row if name.startswith(EVALUATION)}
        named = [(name.replace("_", " "), row[name]) for name in ("validation_loss", "perplexity") if name in row]
        parts.append("evaluation at the end" if row.get("final") else "evaluation")
        return " · ".join([*parts, *(f"{name} {value:.4g}" for name, value in [*named, *figures.items()])])
    parts.append(f"loss {row['loss']:.3f}")
    parts += [f"{name.rpartition('/')[2]} {row[name]:.3f}" for name in SHOWN if name in row]
    parts.append(f"learning rate {row['lr']:.3g}")
    return " · ".join([*parts, f"{short_count(row['tokens_per_second'])} tokens/s"])


def _print(rows: Sequence[Row], *, as_json: bool, every: bool) -> None:
    """All rows as JSON; as lines, of the steps that came together the last, unless `every` is asked for."""
    at = None  # now; an evaluation was right after the step before it
    for number, row in enumerate(rows):
        at = row.get("time", at)
        if as_json:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        elif every or number == len(rows) - 1 or "loss" not in row:
            _say(row_line(row), at=at)


def _say(line: str, at: float | None = None) -> None:
    print(f"{time.strftime('%H:%M:%S', time.localtime(at))} {line}", flush=True)


def _say_finished(manifest: ModelManifest, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"state": "finished", "step": manifest.steps, "digest": manifest.digest}), flush=True)
        return
    loss = "" if manifest.validation_loss is None else f", validation loss {manifest.validation_loss:.3f}"
    _say(f"finished: {counted(manifest.steps, 'step')}{loss}, digest {short_digest(manifest.digest)}")


def _say_ended(run: ObjectStore, rows: Sequence[Row], *, as_json: bool) -> None:
    step = max((row["step"] for row in rows), default=0)
    if as_json:
        print(json.dumps({"state": "stopped", "step": step}), flush=True)
        return
    _say(f"stopped after {counted(step, 'step')}, and not finished: `kindling run` goes on; {shown(run.uri)}")


def _run_of(what: str, store: str) -> ObjectStore:
    """The folder of the training that `what` means: of those of a name the one under way, or else the newest.

    Raises:
        SpecError: there is none.
    """
    match, whole = NAME.fullmatch(what), open_store(storage_of(store))
    if match is not None:
        named = [item for item in items_of(whole) if _is_named(item, match["kind"], match["name"])]
        trainings = [item for item in named if item.folder.startswith(MODELS_FOLDER)]
        if trainings:
            return whole.child(max(trainings, key=lambda item: (item.holder is not None, item.modified)).folder)
        if named:
            raise _no_training(what, "a DatasetBuild, which has no curves")
    folder = find(what, store, MODELS).store
    begins = f"/{MODELS_FOLDER}" in folder.uri and held_by(folder, LOCK) is not None
    if not begins and not folder.exists(METRICS):
        raise _no_training(what, f"no {METRICS}")
    return folder


def _is_named(item: Item, kind: str | None, name: str) -> bool:
    known = {*item.names, *([item.made_by] if item.made_by else [])}
    return any(each.endswith(f"/default/{name}") and kind in (None, each.partition("/")[0]) for each in known)


def _no_training(what: str, found: str) -> SpecError:
    allowed = "a PretrainRun or an AlignmentRun that has begun, by its name or its folder"
    return SpecError(explain(repr(what), found=found, allowed=allowed, remedy="see `kindling list`"))
