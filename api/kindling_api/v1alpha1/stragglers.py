"""Processes that others of their run wait for."""

from __future__ import annotations

from pydantic import Field

from kindling_api.base import Status

MOST_STRAGGLERS = 4
"""Nodes that are told of at once, the slowest."""


class SlowProcess(Status):
    """The slowest training process of a node that others wait for, as the run's first process sees it."""

    rank: int
    """Its number among the run's processes."""
    node: int
    """The number of its machine, as an Indexed Job counts pods."""
    factor: float
    """How many times as long its own work takes as that of others: without waiting for them."""
    step: int
    """The step at which this was found."""


class Straggler(Status):
    """A pod that others wait for, by its slowest training process."""

    pod: str
    """The pod."""
    node: str = Field(max_length=253)
    """The node that it is on."""
    rank: int
    """The training process, by its number in the run."""
    factor: float
    """How many times as long its own work takes as that of others: without waiting for them."""
    step: int
    """The step at which this was found."""
