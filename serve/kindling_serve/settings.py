"""How a model is served: the limits that keep one client from spoiling it for the others."""

from __future__ import annotations

from dataclasses import dataclass

KEY_VARIABLE = "KINDLING_API_KEY"
"""The environment variable that holds the key: an argument could be read by anybody on the machine."""


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """What a server allows."""

    name: str
    """The model's name in requests."""
    api_key: str | None = None
    """What clients must send as `Authorization: Bearer …`; None lets everybody in."""
    origins: tuple[str, ...] = ()
    """Web pages of other addresses whose scripts may use the endpoint, as `https://example.org`, or `*` for all."""
    page: bool = True
    """Whether there is a chat page at `/`."""
    slots: int = 16
    """Most texts that are continued at the same time."""
    line: int = 256
    """Most texts that wait; further requests are told to come later (429)."""
    prefix_bytes: int = 256 * 2**20
    """Memory for what was read of earlier dialogues, whose next turn is then answered sooner; 0 keeps nothing."""
    most_tokens: int = 4096
    """Most tokens of one answer, whatever a request asks for."""
    default_tokens: int = 512
    """The most where a request does not say."""
    body_bytes: int = 2**20
    """The largest request."""
    client_timeout: float = 30.0
    """Seconds that a client may take to send its request, or to read nothing of an answer that waits for it."""
