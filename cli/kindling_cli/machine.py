"""What this machine has for a run, found without loading torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.resources import TrainingResources
from kindling_cli.remarks import Machine

_DRIVER = Path("/proc/driver/nvidia/gpus")
"""A folder for each device, of the NVIDIA driver's (also in containers)."""


def this_machine(driver: Path = _DRIVER) -> Machine:
    """Its memory, within the limits of a container, and the GPUs that its driver shows to this process."""
    from kindling_dataprep.executors.limits import memory_bytes  # not above: a plan without builds needs no dataprep

    gpus = len(list(driver.iterdir())) if driver.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        gpus = min(gpus, len([each for each in visible.split(",") if each.strip() not in ("", "-1")]))
    return Machine(memory=memory_bytes(), gpus=gpus)


def check_gpus(resources: TrainingResources, machine: Machine) -> None:
    """Refuse a run on more GPUs than there are, before anything starts.

    Torch has the last word, for it may know devices of other makers; it is asked only where the driver shows too few.

    Raises:
        SpecError: there are too few.
    """
    if resources.gpu is None or machine.gpus >= resources.processes:
        return
    gpus = _gpus_of_torch()
    if gpus < resources.processes:
        raise SpecError(
            explain(
                "spec.resources.gpu",
                found=f"{resources.processes} processes, and {gpus} GPUs on this machine",
                allowed="at most one process for each GPU",
                remedy="remove gpu to train on the CPU, or lower processesPerNode",
            )
        )


def _gpus_of_torch() -> int:
    code = "import torch; print(torch.cuda.device_count())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return int(result.stdout.strip() or 0)
