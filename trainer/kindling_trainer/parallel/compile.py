"""torch.compile, where it helps and works.

One process with a small model compiles the forward pass and the loss as one graph, which fuses the most. Otherwise each
block is compiled by itself: all blocks share one compilation, and FSDP2's communication stays between the graphs.
"""

from __future__ import annotations

import logging
import shutil
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from kindling_api.errors import SpecError, explain
from kindling_trainer.models import Decoder
from kindling_trainer.parallel.mesh import Ranks
from kindling_trainer.parallel.pipeline import layers_here

WHOLE_MODEL_LAYERS = 16
"""Up to this many layers one process compiles the model whole; compile time grows with the graph."""

CPU_FLOPS = 1e13
"""Arithmetic of a process from which on compiling pays on the CPU. It costs about a minute, and saves a fifth of a run
(docs/measured.md) at some 30 GFLOP/s; bench/compile measures both on a machine."""
GPU_FLOPS = 1e16
"""The same on a GPU, by reckoning and not measured: a minute or two at 10¹⁴ FLOP/s, for half a minute of compiling."""

Mode = Literal["auto", "always", "never"]
Loss = Callable[..., Tensor]

log = logging.getLogger(__name__)


def use_compiler(mode: Mode, ranks: Ranks, flops: float) -> bool:
    """Whether to compile. Under `auto`, a compiler that fails later makes its graph run as it is written.

    Args:
        flops: of the whole run in each process, from its first step to its last whatever is done of it: a run that
            resumes goes on as it began.

    Raises:
        SpecError: compile is `always`, and there is no compiler.
    """
    if mode == "never":
        return False
    reason = _not_worth_it(ranks, flops) if mode == "auto" else ""
    reason = reason or _missing(ranks.device)
    if reason and mode == "always":
        raise SpecError(
            explain(
                "spec.training.compile",
                found=f"always, and {reason}",
                allowed="always where a compiler is installed",
                remedy="install it, or use compile: auto",
            )
        )
    if reason:
        log.info("not compiled: %s", reason)
        return False
    if mode == "auto":
        torch._dynamo.config.suppress_errors = True
    return True


def compile_blocks(model: Decoder, ranks: Ranks) -> None:
    """Compile each block, in place, where the model is not compiled as a whole."""
    if not _as_a_whole(model, ranks):
        for layer in layers_here(model).values():
            layer.compile()


def compile_loss(loss: Loss, model: Decoder, ranks: Ranks) -> Loss:
    """The loss, compiled together with the whole model where that is the choice."""
    return torch.compile(loss, dynamic=False) if _as_a_whole(model, ranks) else loss


def _as_a_whole(model: Decoder, ranks: Ranks) -> bool:
    return ranks.mesh is None and len(model.layers) <= WHOLE_MODEL_LAYERS


def _not_worth_it(ranks: Ranks, flops: float) -> str:
    on_cpu = ranks.device.type == "cpu"
    if on_cpu and ranks.mesh is not None:
        return "several processes share this machine's cores, and each would compile"
    if flops < (least := CPU_FLOPS if on_cpu else GPU_FLOPS):
        return f"the run is over before compiling pays ({flops:.1e} FLOPs; from {least:.0e} on)"
    return ""


def _missing(device: torch.device) -> str:
    """What torch.compile would lack on this machine; "" if nothing."""
    if unwritable := _unwritable_cache():
        return unwritable
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return "" if has_triton() else "Triton does not work with this GPU"
    if not any(shutil.which(str(compiler)) for compiler in torch._inductor.config.cpp.cxx if compiler):
        return "no C++ compiler was found"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "Python's C headers are not installed"
    return ""


def _unwritable_cache() -> str:
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # not above: runs that do not compile start sooner

    try:
        with tempfile.TemporaryFile(dir=cache_dir()):
            return ""
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return f"the compiler's cache cannot be written ({reason}); TORCHINDUCTOR_CACHE_DIR names its folder"
