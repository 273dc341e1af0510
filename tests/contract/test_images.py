"""What the images hold."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
_found = importlib.util.spec_from_file_location("image_lock", PROJECT / "images" / "lock.py")
assert _found is not None and _found.loader is not None
lock = importlib.util.module_from_spec(_found)
_found.loader.exec_module(lock)

COPIED = re.compile(r"^COPY (\w+/kindling_\w+) ", re.MULTILINE)
IMPORTED = re.compile(r"^\s*(?:from|import) (kindling_\w+)", re.MULTILINE)


@pytest.mark.parametrize("name", lock.NAMES)
def test_an_image_installs_the_locked_versions(name: str) -> None:
    assert lock.path(name).read_text() == lock.locked(name), "run `make lock`, or .venv/bin/python images/lock.py"


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("operator", {"torch", "ray", "boto3", "numpy"}),
        ("trainer", {"ray"}),
        ("dataprep", {"torch"}),
        ("serve", {"ray", "kubernetes"}),
    ],
)
def test_an_image_lacks_what_its_program_has_no_use_for(name: str, absent: set[str]) -> None:
    assert not absent & {line.split("==")[0] for line in lock.locked(name).split()}


@pytest.mark.parametrize("name", lock.NAMES)
def test_an_image_holds_all_packages_that_its_own_import(name: str) -> None:
    copied = {Path(source) for source in COPIED.findall((PROJECT / "images" / name / "Dockerfile").read_text())}
    imported = {package for folder in copied for path in (PROJECT / folder).rglob("*.py") for package in imports(path)}
    assert imported <= {folder.name for folder in copied}


@pytest.mark.parametrize("name", ["trainer", "serve"])
def test_pytorch_for_cpus_is_of_its_own_index_and_brings_nothing_of_cuda(name: str, tmp_path: Path) -> None:
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\nfor last; do :; done\n[ ! -f "$last" ] || cat "$last"\n')
    pip.chmod(0o755)
    locked = tmp_path / "requirements.lock"
    locked.write_text(lock.locked(name))
    settings = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTORCH_INDEX": "https://pytorch.example/cpu"}
    command = ["sh", PROJECT / "images" / "install.sh", locked]
    first, second, *rest = subprocess.run(
        command, env=settings, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    everything = lock.locked(name).split()
    torch = next(line for line in everything if line.startswith("torch=="))
    assert first.split()[-3:] == ["--index-url", "https://pytorch.example/cpu", f"{torch}+cpu"]
    assert "--index-url" not in second
    left_out = {line.split("==")[0] for line in everything} - {line.split("==")[0] for line in rest}
    assert {"torch", "triton", "cuda-toolkit", "nvidia-cublas"} <= left_out
    assert all(each.startswith(("torch", "triton", "cuda-", "nvidia-")) for each in left_out)


def imports(path: Path) -> set[str]:
    """Those of our packages that a module imports."""
    return set(IMPORTED.findall(path.read_text()))
