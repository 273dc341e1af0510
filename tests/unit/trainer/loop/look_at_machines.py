"""One of several processes that look at their machines: `RANK FOLDER [SILENT]`; SILENT sends and takes nothing."""

from __future__ import annotations

import sys
import time

import torch
import torch.distributed as dist

from kindling_api.v1alpha1.parallelism import Layout
from kindling_runtime.failure import FailedError
from kindling_trainer.loop import preflight
from kindling_trainer.parallel.mesh import Ranks

NODES = [0, 0, 1]

rank, store = int(sys.argv[1]), dist.FileStore(sys.argv[2], len(NODES))
torch.set_num_threads(1)
dist.init_process_group("gloo", store=store, rank=rank, world_size=len(NODES))
control = dist.new_group(backend="gloo")
assert isinstance(control, dist.ProcessGroup)
ranks = Ranks(rank, Layout(data=len(NODES)), torch.device("cpu"), None, control, None)
if len(sys.argv) > 3:
    preflight.TRANSFER_SECONDS = 1.0
    if rank == int(sys.argv[3]):
        ranks.from_each(None)
        time.sleep(60)
        sys.exit()
try:
    print(preflight.preflight(ranks, NODES, lambda said: None))
except FailedError as error:
    print(error)
