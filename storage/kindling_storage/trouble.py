"""What this process waits for: a store that has stopped answering.

Requests in any thread may wait so, for minutes, while the rest of the process goes on and should be able to say why
some of it does not.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_sentences: dict[str, str] = {}


def trouble() -> str:
    """What is waited for just now, as a sentence without a stop; empty if nothing."""
    with _lock:
        return next(iter(_sentences.values()), "")


def note_trouble(place: str, sentence: str) -> None:
    """From now on this is waited for at `place`; if it is said already, since then."""
    with _lock:
        _sentences.setdefault(place, sentence)


def note_end(place: str) -> None:
    """Nothing is waited for at `place`."""
    with _lock:
        _sentences.pop(place, None)
