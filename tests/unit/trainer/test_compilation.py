"""Whether a model is compiled."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.parallelism import Layout
from kindling_trainer.parallel.compilation import use_compiler
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
        assert not use_compiler("auto", ALONE)
    assert caplog.messages == [
        "not compiled: the compiler's cache cannot be written (read-only file system); "
        "TORCHINDUCTOR_CACHE_DIR names its folder"
    ]
    with pytest.raises(SpecError, match="found always, and the compiler's cache cannot be written"):
        use_compiler("always", ALONE)


def test_without_a_compiler_likewise(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    with caplog.at_level(logging.INFO):
        assert not use_compiler("auto", ALONE)
    assert caplog.messages == ["not compiled: no C++ compiler was found"]


def test_what_is_not_wanted_is_not_tried(read_only: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(read_only))
    assert not use_compiler("never", ALONE)
