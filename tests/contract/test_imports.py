"""Who imports whom, and what may be imported where heavy libraries are absent."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SLOW_TO_START = ("torch", "ray", "transformers")
HEAVY = (*SLOW_TO_START, "numpy", "pyarrow", "tokenizers", "matplotlib")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})


@pytest.mark.slow  # and part of `make check` as it is
def test_imports_go_one_way() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    if not linter.exists():
        pytest.skip("import-linter is not installed")
    report = run(str(linter), "--no-cache")
    assert report.returncode == 0, report.stdout


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("kindling_api.resolve", (*HEAVY, "boto3")),
        ("kindling_api.crds", (*HEAVY, "boto3")),
        ("kindling_api.v1alpha1.runfile", (*HEAVY, "boto3")),
        ("kindling_storage", HEAVY),
        ("kindling_cli.main", (*HEAVY, "boto3")),
        ("kindling_dataprep.__main__", SLOW_TO_START),
        ("kindling_trainer.__main__", SLOW_TO_START),
    ],
)
def test_a_module_is_imported_without_heavy_libraries(module: str, absent: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print(*[name for name in {absent} if name in sys.modules])"
    report = run(sys.executable, "-c", code)
    assert (report.returncode, report.stdout.strip()) == (0, ""), report.stderr
