"""One message of a dialogue, whatever the form in which its record keeps it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant"]


class Message(NamedTuple):
    """What one of the speakers says."""

    role: Role
    content: str
    reasoning: str | None = None
    """What a model thinks before it answers, for the templates that write it."""
    learned: bool = True
    """Whether training may count it; what the assistant says counts unless its record says otherwise."""


Messages = tuple[Message, ...]
