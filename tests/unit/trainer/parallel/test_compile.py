"""Whether a model is compiled."""

from __future__ import annotations

import logging
import math
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.parallelism import Layout
from kindling_trainer.parallel.compile import CPU_FLOPS, GPU_FLOPS, use_compiler
from kindling_trainer.parallel.mesh import Ranks

ALONE = Ranks(0, Layout(), torch.device("cpu"), mesh=None, control=None, background=None)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that cannot be written."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.parametrize("folder", ["", "new"], ids=["there", "to be made"])
def test_without_a_cache_to_write_nothing_is_compiled_and_the_log_says_why(
    read_only: Path, folder: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(read_only / folder))
    with caplog.at_level(logging.INFO):
        assert not use_compiler("auto", ALONE, math.inf)
    assert caplog.messages == [
        "not compiled: the compiler's cache cannot be written (read-only file system); "
        "TORCHINDUCTOR_CACHE_DIR names its folder"
    ]
    with pytest.raises(SpecError, match="found always, and the compiler's cache cannot be written"):
        use_compiler("always", ALONE, math.inf)


def test_without_a_compiler_likewise(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with caplog.at_level(logging.INFO):
        assert not use_compiler("auto", ALONE, math.inf)
    assert caplog.messages == ["not compiled: no C++ compiler was found"]


def test_what_is_not_wanted_is_not_tried(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(read_only))
    assert not use_compiler("never", ALONE, math.inf)


@pytest.mark.parametrize(
    ("flops", "device", "compiled"),
    [(CPU_FLOPS, "cpu", True), (0.99 * CPU_FLOPS, "cpu", False), (0.99 * GPU_FLOPS, "cuda", False)],
)
def test_a_run_that_is_over_before_compiling_pays_is_not_compiled(
    flops: float, device: str, compiled: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kindling_trainer.parallel.compile._missing", lambda device: "")
    with torch._dynamo.config.patch(suppress_errors=False), caplog.at_level(logging.INFO):
        assert use_compiler("auto", replace(ALONE, device=torch.device(device)), flops) is compiled
    assert all("the run is over before compiling pays" in message for message in caplog.messages)
    assert use_compiler("always", ALONE, 1.0), "what is said is done"
