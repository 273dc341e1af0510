"""An elastic run's size, as the launcher of its first machine has it: who takes part, and when that changes."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import UTC, datetime

from kindling_api.logs import say
from kindling_api.v1alpha1.resizes import Resize
from kindling_api.v1alpha1.runfile import PretrainRunFile, Progress
from kindling_api.v1alpha1.status import TrainingProgress
from kindling_runtime.progress import ProgressWriter
from kindling_trainer.data.inputs import TrainingRun
from kindling_trainer.launch.elastic import RESIZE_SECONDS, first_size, largest, wider_size
from kindling_trainer.launch.membership import Members
from kindling_trainer.launch.orders import node_of
from kindling_trainer.launch.request import Request

POLL_SECONDS = 0.2

log = logging.getLogger(__name__)


def is_elastic(run: TrainingRun) -> bool:
    """Whether the run may go over fewer nodes than it asks for."""
    return isinstance(run, PretrainRunFile) and run.spec.resources.min_nodes is not None


class Resizing:
    """Begins each generation of an elastic run, over as many machines as are here and fit.

    Args:
        request: of this launcher; what changes is written down there.
        members: the other launchers.
    """

    def __init__(self, request: Request, members: Members) -> None:
        assert isinstance(request.run, PretrainRunFile)
        self._request, self._members = request, members
        self._sizes = request.run.spec.sizes()
        self._others: list[str] = []
        self._before = 0
        self._began = time.monotonic()
        self._decided: float | None = None  # when the change of size was decided on whose first step has yet to come
        self._restored = 0
        self._cost = RESIZE_SECONDS

    @property
    def nodes(self) -> int:
        """Machines that take part in the newest generation, this one with them."""
        return 1 + len(self._others)

    def begin(self) -> bool:
        """Start the first generation, as soon as there are enough machines; False where the run was asked to stop."""
        return self._start(self._choose(first=True))

    def go_on(self, saved: int) -> bool:
        """Start another generation from the checkpoint after step `saved`, with the machines that can take part.

        Returns:
            Whether it was started: not where the run was asked to stop.
        """
        step, before = self._step(), self._others
        decided = time.monotonic()
        if not self._start(self._choose(first=False)):
            return False
        self._restored = saved
        if self._others != before:
            self._decided = decided
            self._write_down(_why(before, self._others), max(0, step - saved))
        return True

    def lost(self) -> list[str]:
        """Who took part in the newest generation and cannot in the next."""
        return sorted(set(self._others) - set(self._members.ready()))

    def is_due(self) -> bool:
        """Whether the run is to go on over more machines now, which have come and pay for it."""
        if self._decided is not None:
            self._measure()
        joined = self._members.joined()
        if largest(self._sizes, 1 + len(joined)) in (None, self.nodes):
            return False
        came = max((joined[name] for name in joined if name not in self._others), default=0.0)
        wider = wider_size(
            self._sizes, self.nodes, 1 + len(joined),
            quiet=time.monotonic() - came, remaining=self._remaining(), cost=self._cost,
        )  # fmt: skip
        return wider is not None

    def _choose(self, *, first: bool) -> list[str] | None:
        """The others of the next generation, once there are enough; None where the run was asked to stop before that.

        Who takes part already has the least to do, and comes first.
        """
        while not self._request.asked:
            ready = self._members.ready()
            quiet = time.monotonic() - max([self._began, *self._members.joined().values()])
            present = 1 + len(ready)
            size = first_size(self._sizes, present, quiet) if first else largest(self._sizes, present)
            if size is not None:
                stay = [name for name in self._others if name in ready]
                return sorted([*stay, *(name for name in ready if name not in stay)][: size - 1], key=node_of)
            self._tell_waiting(present)
            time.sleep(POLL_SECONDS)
        return None

    def _start(self, others: list[str] | None) -> bool:
        if others is None:
            return False
        self._before, self._others = self.nodes, others
        self._request.nodes = self.nodes
        over = f"over {self.nodes} of {self._sizes[-1]} nodes"
        self._tell(Progress(message=f"starting {over}", training=_STARTING))
        say(log, f"this run goes {over}", nodes=self.nodes)
        self._members.start(self._others)
        return True

    def _tell_waiting(self, present: int) -> None:
        self._request.nodes = 0
        message = f"waiting for nodes: {present} of at least {self._sizes[0]} {'is' if present == 1 else 'are'} here"
        self._tell(Progress(message=message, trouble="WaitingForNodes", training=_STARTING))

    def _tell(self, progress: Progress) -> None:
        """In the place of what the processes of the generation before wrote."""
        ProgressWriter(self._request.progress).write(progress, force=True)

    def _write_down(self, cause: str, lost_steps: int) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        resize = Resize(time=now, before=self._before, nodes=self.nodes, cause=cause, lost_steps=lost_steps)
        self._request.resizes.append(resize)
        log.warning("%s: %d nodes instead of %d, from step %d", cause, self.nodes, self._before, self._restored)

    def _measure(self) -> None:
        """What the newest change of size cost, once its first step was taken."""
        assert self._decided is not None
        if self._step() > self._restored:
            seconds = round(time.monotonic() - self._decided, 1)
            self._cost, self._decided = seconds, None
            self._request.resizes[-1] = self._request.resizes[-1].model_copy(update={"seconds": seconds})

    def _step(self) -> int:
        """Steps taken, as far as the first training process has said."""
        training = self._progress().training
        return training.step if training is not None else 0

    def _remaining(self) -> float | None:
        training = self._progress().training
        if training is None or training.stage != "training" or training.eta_seconds is None:
            return None
        return training.eta_seconds

    def _progress(self) -> Progress:
        assert self._request.progress is not None, "a run over several machines has a place for it"
        with suppress(FileNotFoundError):
            return Progress.model_validate_json(self._request.progress.read_bytes())
        return Progress()


_STARTING = TrainingProgress(stage="starting")


def _why(before: list[str], after: list[str]) -> str:
    """What a change of size came from."""
    gone, come = set(before) - set(after), set(after) - set(before)
    parts = []
    if gone:
        parts.append(f"{_nodes(gone)} {'is' if len(gone) == 1 else 'are'} gone")
    if come:
        parts.append(f"{_nodes(come)} {'has' if len(come) == 1 else 'have'} come")
    return " and ".join(parts) or "other nodes are here"


def _nodes(names: set[str]) -> str:
    numbers = sorted(node_of(name) for name in names)
    return f"node{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
