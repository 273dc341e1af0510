"""What this process waits for: a store that has stopped answering, or refuses.

Requests in any thread may wait so, for minutes, while the rest of the process goes on and should be able to say why
some of it does not.
"""

from __future__ import annotations

import threading

_lock = threading.Lock()
_sentences: dict[str, tuple[str, str]] = {}  # what is met at a place, and the sentence about it


def outage() -> str:
    """What is waited for just now, as a sentence without a stop; empty if nothing."""
    with _lock:
        return next((sentence for _, sentence in _sentences.values()), "")


def note_outage(place: str, met: str, sentence: str) -> None:
    """From now on `place` is waited for, where this was met; if that is said already, since then."""
    with _lock:
        if _sentences.get(place, ("", ""))[0] != met:
            _sentences[place] = met, sentence


def note_recovery(place: str) -> None:
    """Nothing is waited for at `place`."""
    with _lock:
        _sentences.pop(place, None)
