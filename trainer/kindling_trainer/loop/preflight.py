"""A look at the machines before the first step: what a transfer between neighbours takes, and a multiplication on each.

It takes seconds, on any number of processes: each sends to the next one and multiplies, all at once, as in a step.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import fmean, median_low

import torch
import torch.distributed as dist
from torch import Tensor

from kindling_api.errors import EXIT_OURS
from kindling_api.v1alpha1.status import Failure
from kindling_runtime.failure import FailedError
from kindling_trainer.loop.stragglers import GATHERS, factors, slow_ranks
from kindling_trainer.parallel.mesh import Ranks

SIZES: Mapping[str, tuple[int, torch.dtype]] = {"cpu": (512, torch.float32), "cuda": (8192, torch.bfloat16)}
"""Rows and columns of the matrices that are multiplied, by the kind of device: about 5 ms of a core, 2 of an H100."""
MULTIPLICATION_SECONDS = 0.5
"""Of multiplications one after the other that make one figure, of GATHERS: longer than the 100 ms for which a limit of
CPU holds, so that it shows."""
TRANSFER_BYTES: Mapping[str, int] = {"cpu": 2**24, "cuda": 2**28}
"""16 and 256 MiB: a fraction of a second at 1 and at 10 Gbit/s."""
TRANSFERS = 3
"""One after the other; the fastest counts, since the first one opens connections."""
TRANSFER_SECONDS = 30.0
"""All of them may take; at a hundredth of 1 Gbit/s they take longer."""
SLOW_LINK = 2.0
"""From how many times the others' time on a transfer is told of. It makes no process slow: either side may be why."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preflight:
    """What was found, the same on all processes."""

    slow: dict[int, float] = field(default_factory=dict)
    """The slow processes, each with how many times as long its multiplication takes as that of others."""
    sentence: str = ""
    """What was measured, for people."""


def preflight(ranks: Ranks, nodes: Sequence[int], tell: Callable[[str], None]) -> Preflight:
    """Look at all machines.

    Args:
        nodes: the number of each process's machine, by rank.
        tell: gets what the first process says of it.

    Raises:
        FailedError: a transfer failed, or did not end in time; it names both processes.
    """
    if ranks.leads:
        tell("preflight")
    transfers = ranks.from_each(transfer_seconds(ranks, nodes))
    figures = [ranks.from_each(multiplication_seconds(ranks.device)) for _ in range(GATHERS)]
    means = [fmean(course) for course in zip(*figures, strict=True)]
    sentence = f"a multiplication takes {_range(means)} on {len(means)} processes"
    if len(nodes) > 1:
        mebibytes = TRANSFER_BYTES[ranks.device.type] >> 20
        sentence += f", and {mebibytes} MiB take {_range(transfers)} from one to the next"
    if ranks.leads:
        log.info("preflight: %s", sentence)
        tell(f"preflight: {sentence}")
        _warn_of_links(transfers, nodes)
    return Preflight(slow_ranks([factors(figure, 1) for figure in figures], frozenset()), sentence)


def _warn_of_links(transfers: Sequence[float], nodes: Sequence[int]) -> None:
    for receiver, factor in slow_links(transfers, nodes).items():
        pair = _who((receiver - 1) % len(nodes), nodes), _who(receiver, nodes)
        log.warning("what %s sends to %s takes %.1f times as long as between others", *pair, factor)


def multiplication_seconds(device: torch.device) -> float:
    """What one multiplication takes, as the mean over MULTIPLICATION_SECONDS."""
    size, precision = SIZES[device.type]
    left = torch.ones(size, size, dtype=precision, device=device)
    out = torch.mm(left, left)
    began, count = _now(device), 0
    while (now := _now(device)) - began < MULTIPLICATION_SECONDS:
        torch.mm(left, left, out=out)
        count += 1
    return (now - began) / count


def transfer_seconds(ranks: Ranks, nodes: Sequence[int]) -> float:
    """What a transfer from the process before this one takes, while all send to the next; 0 where there is none.

    Raises:
        FailedError: as `preflight`.
    """
    if len(nodes) == 1:
        return 0.0
    device, count = ranks.device, len(nodes)
    outgoing = torch.ones(TRANSFER_BYTES[device.type], dtype=torch.uint8, device=device)
    incoming = torch.empty_like(outgoing)
    best, until = float("inf"), time.monotonic() + TRANSFER_SECONDS
    for _ in range(TRANSFERS):
        ranks.from_each(None)
        began = _now(device)
        try:
            _exchange(ranks, outgoing, incoming, until)
        except (RuntimeError, TimeoutError) as error:
            sender = (ranks.rank - 1) % count
            what = f"a transfer from {_who(sender, nodes)} to {_who(ranks.rank, nodes)} did not arrive"
            why = f"within {TRANSFER_SECONDS:.0f} seconds: {error}"
            failure = Failure(reason="RankFailed", message=f"preflight: {what} {why}", exit_code=EXIT_OURS)
            raise FailedError(failure) from error
        best = min(best, _now(device) - began)
    return best


def slow_links(transfers: Sequence[float], nodes: Sequence[int]) -> dict[int, float]:
    """The processes to which a transfer took long, by how many times as long as to others; those within a machine and
    those between machines are compared each among themselves."""
    crosses = [nodes[rank - 1] != node for rank, node in enumerate(nodes)]
    found: dict[int, float] = {}
    for kind in (True, False):
        alike = [rank for rank, crossing in enumerate(crosses) if crossing is kind]
        if alike:
            usual = median_low(transfers[rank] for rank in alike)
            found |= {rank: transfers[rank] / usual for rank in alike if transfers[rank] >= SLOW_LINK * usual > 0}
    return found


def _exchange(ranks: Ranks, outgoing: Tensor, incoming: Tensor, until: float) -> None:
    """Send to the next process what comes from the one before, all at once.

    Raises:
        RuntimeError, TimeoutError: it failed, or did not end in time.
    """
    count = ranks.layout.processes
    pairs = [(dist.isend, outgoing, (ranks.rank + 1) % count), (dist.irecv, incoming, (ranks.rank - 1) % count)]
    works = dist.batch_isend_irecv([dist.P2POp(call, tensor, peer) for call, tensor, peer in pairs])
    for work in reversed(works):  # first what comes in: it is what this process tells of
        if outgoing.device.type == "cpu":
            work.wait(timedelta(seconds=max(0.001, until - time.monotonic())))
        else:
            work.wait()
    while outgoing.device.type == "cuda" and not torch.cuda.current_stream().query():
        if time.monotonic() > until:
            raise TimeoutError("the GPU still waits for it")
        time.sleep(0.001)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _who(rank: int, nodes: Sequence[int]) -> str:
    return f"process {rank} on node {nodes[rank]}"


def _range(seconds: Sequence[float]) -> str:
    return f"{1000 * min(seconds):.1f} to {1000 * max(seconds):.1f} ms"
