"""`kindling generate`: one prompt, one continuation, printed as it comes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from kindling_cli.load_model import load_generator
from kindling_trainer.chat.message import Message
from kindling_trainer.inference.sampling import GenerationOptions


def generate_text(model: str, prompt: str, *, store: str, as_json: bool = False, **options: Any) -> None:
    """Print the prompt and its continuation, piece by piece or, as JSON, at the end.

    Args:
        options: those of `GenerationOptions`.

    Raises:
        SpecError: `model` means no model, an option is out of bounds, or the prompt cannot be tokenised.
    """
    chosen = GenerationOptions(**options)
    text = sys.stdin.read() if prompt == "-" else prompt
    pieces = load_generator(model, store).generate(text, chosen)
    if as_json:
        print(json.dumps({"model": model, "prompt": text, "text": "".join(pieces)}, ensure_ascii=False))
        return
    print(text, end="", flush=True)
    print_pieces(pieces)


def answer_text(model: str, question: str, *, store: str, **options: Any) -> None:
    """Print a question and what the model answers, piece by piece; a model that only continues texts does that.

    Raises:
        SpecError: as `generate_text`.
    """
    generator = load_generator(model, store)
    if generator.chat is None:
        generate_text(model, question, store=store, **options)
        return
    print(f"› {question}", flush=True)
    print_pieces(generator.answer([Message("user", question)], GenerationOptions(**options)))


def print_pieces(pieces: Iterable[str]) -> None:
    """Print pieces of text as they come, and a line's end; Ctrl-C ends the text, not the program."""
    try:
        for piece in pieces:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    print()
