"""What this machine's CPU can do; no torch, so that `kindling plan` may ask, too."""

from __future__ import annotations

import re
from pathlib import Path


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions that multiply bfloat16 numbers: about twice as fast as fp32, instead of slower.

    They are AVX512-BF16 (AMD since Zen 4, Intel since Cooper Lake) and AMX (Intel since Sapphire Rapids).
    """
    try:
        return re.search(r"^flags\s*:.*\b(avx512_bf16|amx_bf16)\b", cpuinfo.read_text(), re.MULTILINE) is not None
    except OSError:
        return False
