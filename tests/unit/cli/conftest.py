"""Documents, and stages that only pretend: quick processes with the real protocol."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

STAGE_DOUBLE = Path(__file__).parent / "child_double.py"

DATASET = """
apiVersion: kindling.dev/v1alpha1
kind: DatasetBuild
metadata: {{name: {name}}}
spec:
  sources: [{{uri: text.txt}}]
  tokenizer: {{byte: {{}}}}
"""

PRETRAIN = """
apiVersion: kindling.dev/v1alpha1
kind: PretrainRun
metadata: {{name: {name}}}
spec:
  dataset: {{name: {dataset}}}
  model: {{architecture: llama, layers: 1, heads: 2, width: 16, context: 16}}
  training: {{steps: 10, batch: {{tokens: 64}}}}
"""

ALIGNMENT = """
apiVersion: kindling.dev/v1alpha1
kind: AlignmentRun
metadata: {{name: {name}}}
spec:
  base: {{name: {base}}}
  method: {{sft: {{}}}}
  data: [{{uri: chat.jsonl}}]
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes documents, given as text, into one file, beside the data that they name; returns the file."""
    (tmp_path / "text.txt").write_text("Once upon a time there was a text.\n")
    said = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello to you."}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": said}) + "\n")
    pair = {"prompt": "Hello!", "chosen": "Hello to you.", "rejected": "No."}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair) + "\n")

    def write(*documents: str, name: str = "run.yaml") -> Path:
        path = tmp_path / name
        path.write_text("---".join(documents))
        return path

    return write


@pytest.fixture
def dataset() -> Callable[[str], str]:
    return lambda name: DATASET.format(name=name)


@pytest.fixture
def pretrain() -> Callable[[str, str], str]:
    return lambda name, dataset: PRETRAIN.format(name=name, dataset=dataset)


@pytest.fixture
def alignment() -> Callable[[str, str], str]:
    return lambda name, base: ALIGNMENT.format(name=name, base=base)


@pytest.fixture(scope="session")
def doubles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, on the path, puts the double before the real packages' processes, and nothing before the rest."""
    folder = tmp_path_factory.mktemp("doubles")
    for package in ("kindling_dataprep", "kindling_trainer"):
        (folder / package).mkdir()
        rest = "from pkgutil import extend_path\n\n__path__ = extend_path(__path__, __name__)\n"
        (folder / package / "__init__.py").write_text(rest)
        shutil.copy(STAGE_DOUBLE, folder / package / "__main__.py")
    return folder


@pytest.fixture
def ran(tmp_path: Path, doubles: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Puts the double in the stages' place; tells which have run."""
    record = tmp_path / "ran"
    monkeypatch.setenv("FAKE_STAGES_RUN", str(record))
    monkeypatch.setenv("PYTHONPATH", str(doubles))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return lambda: record.read_text().split() if record.exists() else []


@pytest.fixture
def kindling() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line as users do."""

    def kindling(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kindling_cli.main", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ, **(env or {})})

    return kindling
