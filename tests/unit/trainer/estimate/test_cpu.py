"""Whether a CPU multiplies bfloat16 is read from what the kernel says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kindling_trainer.estimate.cpu import multiplies_bfloat16


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param("model name\t: EPYC\nflags\t\t: fpu avx512f avx512_bf16 avx512vl\n", True, id="Zen 4"),
        pytest.param("flags\t\t: fpu avx512f amx_bf16\n", True, id="Sapphire Rapids"),
        pytest.param("flags\t\t: fpu avx2 avx512f avx512_bf16x\n", False, id="another flag"),
        pytest.param("vmx flags\t: avx512_bf16\nflags\t\t: avx2\n", False, id="another line"),
    ],
)
def test_the_flags_tell(tmp_path: Path, content: str, expected: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(content)
    assert multiplies_bfloat16(cpuinfo) is expected


def test_without_the_file_it_does_not(tmp_path: Path) -> None:
    assert not multiplies_bfloat16(tmp_path / "nothing")
