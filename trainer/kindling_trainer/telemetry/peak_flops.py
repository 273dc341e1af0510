"""What the hardware could do at best."""

from __future__ import annotations

import torch

from kindling_api.v1alpha1.training import TrainingSpec
from kindling_trainer.parallel.apply import compute_precision
from kindling_trainer.parallel.mesh import Ranks

PEAK_BF16_FLOPS = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 836e12,
    "H100": 989e12,
    "H200": 989e12,
    "B200": 2250e12,
}
"""Dense bf16 matrix multiplication, in FLOP/s, from NVIDIA's data sheets; the first name that fits counts."""


def peak_flops(ranks: Ranks, training: TrainingSpec) -> float | None:
    """FLOP/s of all the run's devices together, where known; for CPUs and fp32 it is not.

    MFU sets the model's arithmetic against it: 6N + 12·L·H·Q·T FLOPs a token (Chowdhery et al. 2022, PaLM, appendix B),
    with attention counted in full. NVIDIA's tables halve attention, since it is causal, and so show smaller figures.
    """
    if ranks.device.type != "cuda" or compute_precision(training, ranks) != torch.bfloat16:
        return None
    name = torch.cuda.get_device_name(ranks.device)
    peak = next((flops for known, flops in PEAK_BF16_FLOPS.items() if known in name), None)
    return None if peak is None else peak * ranks.layout.processes
