"""What a model says, token by token, as text that a reader may see."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from kindling_trainer.inference.generate import TokenDecoder


class Detokenizer:
    """Text as it comes, in whole characters, up to a stop string; text that may begin one is held back.

    It may be one text with the tokens `before` it: see `TokenDecoder`.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = (), before: Sequence[int] = ()) -> None:
        self._pieces, self._stops = TokenDecoder(tokenizer, before), stops
        self._held = ""
        self.stopped = False
        """Whether a stop string has come; nothing more is told then."""

    def add(self, token: int) -> str:
        """The text that may be shown with this token."""
        return self._show(self._pieces.add(token))

    def end(self) -> str:
        """What was held back, once there is nothing more to come."""
        shown = self._show(self._pieces.rest())
        rest, self._held = self._held, ""
        return shown + rest

    def _show(self, text: str) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            shown, self._held = self._held[: min(found)], ""
            return shown
        kept = max((_begun(self._held, stop) for stop in self._stops), default=0)
        cut = len(self._held) - kept
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
