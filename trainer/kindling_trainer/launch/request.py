"""What a launcher was started for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kindling_api.bounds import SAVE_SECONDS
from kindling_api.v1alpha1.products import model_folder
from kindling_api.v1alpha1.resizes import Resize
from kindling_api.v1alpha1.status import Failure
from kindling_runtime.fork_server import ForkServer
from kindling_storage import ObjectStore
from kindling_trainer.data.inputs import TrainingRun
from kindling_trainer.launch.node import Node

PROGRAM = "kindling_trainer.train"
"""The module that each training process runs."""


@dataclass
class Request:
    """What this process was started for."""

    run: TrainingRun
    runfile: Path
    output: ObjectStore
    """The whole store in which the run is kept."""
    node: Node
    managed: bool
    """Whether this is one attempt, and another one is started by whoever started this."""
    progress: Path | None
    """Where the first training process says how far it is."""
    asked: list[int]
    """Signals that have come in so far; the handler appends to it."""
    server: ForkServer
    """Starts the training processes."""
    save_seconds: float = SAVE_SECONDS
    """How long the training processes have to save and leave when asked to stop."""
    log: str = "text"
    """The form of the training processes' logs."""
    restarts: list[Failure] = field(default_factory=list)
    """Why the training processes were started again so far; the launcher appends to it."""
    resizes: list[Resize] = field(default_factory=list)
    """How the number of machines that take part changed so far; likewise."""
    nodes: int | None = None
    """Machines that take part, where the run is elastic; 0 while it waits for enough of them."""

    @property
    def store(self) -> ObjectStore:
        """The run's folder."""
        return self.output.child(model_folder(self.run.key))
