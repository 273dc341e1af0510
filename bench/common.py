"""What several benches need: options, run files, processes and their use of the machine. It imports nothing heavy."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kindling_api.base import key_of
from kindling_api.resolve import content_of
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_api.v1alpha1.runfile import DatasetBuildFile, PretrainRunFile


def options_of(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring as it is written, and has `--json`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    return parser


def write_figures(path: Path | None, figures: Mapping[str, Any]) -> None:
    """The figures as JSON, where a file was named for them."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=1) + "\n")


def build_file(name: str, document: dict[str, Any], store: Path) -> DatasetBuildFile:
    """The run file of a DatasetBuild with this spec, as `kindling run` writes it."""
    spec = DatasetBuildSpec.model_validate_json(json.dumps(document))
    fields = {"name": name, "key": key_of(content_of(spec)), "output": {"uri": store.as_uri()}, "spec": spec}
    return DatasetBuildFile.model_validate(fields)


def pretrain_file(name: str, document: dict[str, Any], store: Path, key: str | None = None) -> PretrainRunFile:
    """The run file of a PretrainRun with this spec, whose dataset is given by its URI."""
    spec = PretrainRunSpec.model_validate_json(json.dumps(document))
    dataset, output = {"uri": document["dataset"]["uri"]}, {"uri": store.as_uri()}
    fields = {"name": name, "key": key or key_of(name), "output": output, "spec": spec, "dataset": dataset}
    return PretrainRunFile.model_validate(fields)


def descendants(pid: int) -> list[int]:
    """A process and all that it has started, directly or not, in that order."""
    found = [pid]
    for number in found:
        try:
            for thread in Path(f"/proc/{number}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):  # it has just ended
            continue
    return found


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    seconds: float
    """By the clock."""
    cpu_seconds: float
    """Of it and of all processes that it has waited for."""
    peak_mebibytes: float
    """The resident size of the largest of these processes."""
    output: str
    """What it printed."""


def measured(command: Sequence[str | Path], environment: Mapping[str, str], folder: Path | None = None) -> Usage:
    """Run a command to its end, with `environment` beside this process's own.

    Raises:
        SystemExit: it failed; with the end of what it said.
    """
    began = time.monotonic()
    with subprocess.Popen(
        [*map(str, command)], cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{output[-3000:]}")
    seconds = time.monotonic() - began
    return Usage(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, output)
