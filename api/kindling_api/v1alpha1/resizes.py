"""Over how many nodes an elastic run goes, and how that has changed."""

from __future__ import annotations

from pydantic import Field

from kindling_api.base import Status

MOST_RESIZES = 10
"""Changes of a run's size that a status remembers."""


class Resize(Status):
    """A change of the number of nodes over which an elastic run goes."""

    time: str
    """When it was decided on (RFC 3339)."""
    before: int
    """Nodes before it."""
    nodes: int
    """Nodes after it."""
    cause: str = Field(max_length=256)
    """What it came from, as a sentence."""
    lost_steps: int = 0
    """Steps that were taken and not saved, and so are taken again."""
    seconds: float | None = None
    """From the decision to the first step after it; absent until that was taken."""


class NodesStatus(Status):
    """Over how many nodes an elastic run goes."""

    running: int
    """Nodes that take part."""
    wanted: int
    """Nodes that it asks for."""
    sizes: list[int] = []
    """The numbers of nodes at which it can go on."""
