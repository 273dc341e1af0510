"""`kindling generate`: one prompt, one continuation, printed as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from kindling_cli.voice import load_voice
from kindling_trainer.sampling import GenerationOptions


def generate_text(model: str, prompt: str, *, store: str, **options: Any) -> None:
    """Print the prompt and its continuation, piece by piece.

    Args:
        options: those of `GenerationOptions`.

    Raises:
        SpecError: `model` means no model, an option is out of bounds, or the prompt cannot be tokenised.
    """
    chosen = GenerationOptions(**options)
    text = sys.stdin.read() if prompt == "-" else prompt
    pieces = load_voice(model, store).generate(text, chosen)
    print(text, end="", flush=True)
    speak(pieces)


def speak(pieces: Iterable[str]) -> None:
    """Print pieces of text as they come, and a line's end; Ctrl-C ends the text, not the program."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
