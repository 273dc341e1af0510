"""The benchmark for GPUs runs its whole path at toy size on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[3] / "bench" / "gpu" / "bench.py"


@pytest.mark.slow
def test_the_toy_models_are_timed_and_written_as_json(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    command = [sys.executable, str(BENCH), "--toy", "--steps", "2", "--warm-up", "1", "--compile", "never"]
    done = subprocess.run([*command, "--json", str(out)], capture_output=True, text=True, timeout=300, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["gpt2-toy", "llama-toy"]
    assert all("ms/step" in line and "tokens/s" in line for line in lines)
    assert "MFU" not in done.stdout, "a CPU has no stated peak"
    figures = json.loads(out.read_text())
    assert figures["device"] == "CPU" and figures["torch"]
    for row in figures["rows"]:
        assert row["tokensPerSecond"] > 0 and row["mfu"] is None and row["context"] == 32
