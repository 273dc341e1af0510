"""`kindling generate`: one prompt, one continuation, printed as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from kindling_cli.voice import load_voice
from kindling_trainer.align.formats import Message
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


def answer_text(model: str, question: str, *, store: str, **options: Any) -> None:
    """Print a question and what the model answers, piece by piece; a model that only continues texts does that.

    Raises:
        SpecError: as `generate_text`.
    """
    generator = load_voice(model, store)
    if generator.chat is None:
        generate_text(model, question, store=store, **options)
        return
    print(f"› {question}", flush=True)
    speak(generator.answer([Message("user", question)], GenerationOptions(**options)))


def speak(pieces: Iterable[str]) -> None:
    """Print pieces of text as they come, and a line's end; Ctrl-C ends the text, not the program."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
