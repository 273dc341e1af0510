"""What went wrong in a training run and was mended in its course, without a restart."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kindling_api.base import Status
from kindling_api.bounds import INCIDENT_MESSAGE

MOST_INCIDENTS = 10
"""Of a run that a status remembers."""


class Incident(Status):
    """Something that went wrong in a training run and was mended in its course, without a restart."""

    time: str
    """When (RFC 3339)."""
    reason: Literal["StepSkipped", "CheckpointDamaged"]
    """What, as a constant."""
    message: str = Field(max_length=INCIDENT_MESSAGE)
    """What, as a sentence, and what was done about it."""
