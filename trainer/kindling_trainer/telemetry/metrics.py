"""The curves of a run: metrics.jsonl, one JSON object a line, and TensorBoard's event files.

A run that resumes goes on where its checkpoint was: rows of later steps, which an interrupted attempt had written, are
cut, so that each step has one row and the curve has no fold. So is a final evaluation, which is made anew.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kindling_storage import ObjectStore
from kindling_storage.atomic import local_errors

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"

EVALUATION = "evaluation/"
"""What stands before the names of an evaluation's figures in the curves."""

BEFORE = "_before"
"""What ends the name of a figure of the base, beside the same one of the aligned model."""

Row = dict[str, Any]


class Metrics:
    """Appends to the curves; each row is in the file when `add` returns."""

    def __init__(self, run: ObjectStore, finished_steps: int) -> None:
        """The curves in the folder `run`, up to `finished_steps`.

        Raises:
            StorageError: they cannot be read or written.
        """
        self._run = run
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        """Where the files are, until `upload`, for a store that is not on this machine."""
        path = run.local_path(METRICS)
        if path is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="kindling-metrics-")
            path = Path(self._scratch.name) / METRICS
            if run.exists(METRICS):
                run.download(METRICS, path)
        self._path, self._folder = path, path.parent
        with local_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            goes_on = finished_steps and path.exists()  # a run that begins anew tries its base anew
            before = rows_of(path.read_text() if goes_on else "")
            self._open([row for row in before if "final" not in row], finished_steps)

    def go_back(self, finished_steps: int) -> None:
        """The run is again where it was after so many steps.

        Raises:
            StorageError: the curves cannot be written.
        """
        with local_errors(self._path):
            self._file.close()
            self._board.close()
            self._open(self.rows, finished_steps)

    def _open(self, rows: list[Row], finished_steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # half a second: only the first process needs it

        self.rows = [row for row in rows if row["step"] <= finished_steps]
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(_line(row) for row in self.rows))
        temporary.replace(self._path)
        self._file = self._path.open("a")
        self._board = SummaryWriter(str(self._folder / TENSORBOARD), purge_step=finished_steps + 1)

    def add(self, row: Row) -> None:
        """Append a row; it holds `step`, and figures by name, or `samples`.

        Raises:
            StorageError: it cannot be written, as on a full disk.
        """
        row = {name: value for name, value in row.items() if value is not None}
        self.rows.append(row)
        with local_errors(self._path):
            self._file.write(_line(row))
            self._file.flush()
            for name, value in row.items():
                if isinstance(value, float) and name != "time":
                    self._board.add_scalar(name, value, row["step"])
            for sample in row.get("samples", ()):
                self._board.add_text(sample["prompt"], sample["text"], row["step"])

    def upload(self) -> None:
        """Bring a store that is not on this machine up to date.

        Raises:
            StorageError: it cannot be written.
        """
        with local_errors(self._folder / TENSORBOARD):
            self._board.flush()
        if self._scratch is not None:
            for path in sorted(self._folder.rglob("*")):
                if path.is_file():
                    self._run.put(path.relative_to(self._folder).as_posix(), path)

    def close(self) -> None:
        """The last word."""
        self.upload()
        self._file.close()
        self._board.close()
        if self._scratch is not None:
            self._scratch.cleanup()


def rows_of(text: str) -> Iterator[Row]:
    """The rows of a metrics.jsonl; a line that is unfinished, or that a killed process left so, ends it."""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def perplexity(loss: float) -> float:
    """e to the loss, in nats; at most the largest float."""
    return math.exp(min(loss, 700.0))


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"
