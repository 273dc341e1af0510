"""`kindling chat`: a conversation at the terminal. A model with a chat template answers; a base model continues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from kindling_api.errors import SpecError, UserError, explain
from kindling_cli.commands.generate import print_pieces
from kindling_cli.load_model import load_generator
from kindling_trainer.chat.message import Message
from kindling_trainer.inference.generate import Generator
from kindling_trainer.inference.sampling import GenerationOptions

WELCOME = """\
You are talking to {model}. It remembers the dialogue until /reset. /help lists
the commands; Ctrl-C stops an answer, Ctrl-D leaves."""

WELCOME_BASE = """\
{model} is a base model: it does not answer, it continues what you write, and
the text goes on from turn to turn until /reset. /help lists the commands;
Ctrl-C stops a text, Ctrl-D leaves."""

HELP = """\
  /temperature 0.7         0 is greedy; higher is wilder
  /top-k 40                draw from the 40 likeliest tokens, or off
  /top-p 0.9               draw from the likeliest nine tenths, or off
  /repetition-penalty 1.1  above 1, repeats are less likely
  /max-tokens 200          most tokens of one turn
  /seed 1                  the same seed gives the same text, or off
  /system Answer in rhyme  what an answering model is told first, or off
  /reset                   forget what was said so far
  /quit                    leave"""

_TYPES: dict[str, type[int] | type[float]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "max_tokens": int,
    "seed": int,
}


@dataclass(frozen=True)
class State:
    """What was said so far, how it goes on, and what the last command had to say."""

    options: GenerationOptions
    said_before: tuple[Message, ...] = ()
    system: str = ""
    said: str = ""
    over: bool = False


def converse(model: str, *, store: str, **options: Any) -> None:
    """Read lines and print continuations until the user leaves.

    Raises:
        SpecError: `model` means no model, or an option is out of bounds.
    """
    console = Console(highlight=False)
    state = State(GenerationOptions(**options))
    generator = load_generator(model, store)
    welcome = WELCOME_BASE if generator.chat is None else WELCOME
    console.print(welcome.format(model=model), style="dim", markup=False)
    while not state.over:
        try:
            line = console.input("[bold cyan]› [/]")
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line.startswith("/"):
            state = apply_command(line, state)
            console.print(state.said, style="dim", markup=False)
        else:
            state = _turn(generator, line, state)


def apply_command(line: str, state: State) -> State:
    """The state after a command such as `/temperature 0.7`; a wrong command changes nothing and says why."""
    name, _, value = line.removeprefix("/").partition(" ")
    field = name.strip().replace("-", "_")
    match field:
        case "quit" | "exit":
            return replace(state, over=True, said="")
        case "reset":
            return replace(state, said_before=(), said="What was said so far is forgotten.")
        case "system":
            text = "" if value.strip() == "off" else value.strip()
            return replace(state, system=text, said=f"system is {text or 'off'}.")
        case "help":
            return replace(state, said=HELP)
    try:
        options = GenerationOptions(**{**vars(state.options), field: _parsed(field, value.strip())})
    except SpecError as error:
        return replace(state, said=str(error))
    now = getattr(options, field)
    return replace(state, options=options, said=f"{name} is {'off' if now is None else now}.")


def _parsed(field: str, value: str) -> int | float | None:
    command = f"/{field.replace('_', '-')}"
    if field not in _TYPES:
        commands = ", ".join(f"/{name.replace('_', '-')}" for name in (*_TYPES, "system", "reset", "help", "quit"))
        raise SpecError(explain(command, found="an unknown command", allowed=commands, remedy="see /help"))
    if value == "off" and field in ("top_k", "top_p", "seed"):
        return None
    try:
        return _TYPES[field](value)
    except ValueError:
        allowed = "a whole number" if _TYPES[field] is int else "a number"
        remedy = f"write it after the command, as in {command} 1"
        raise SpecError(explain(command, found=repr(value), allowed=allowed, remedy=remedy)) from None


def _turn(generator: Generator, line: str, state: State) -> State:
    """Print what follows `line`; the state has both afterwards."""
    said = (*state.said_before, Message("user", line))
    heard: list[str] = []
    try:
        pieces = _pieces(generator, said, state)
    except UserError as error:
        Console(highlight=False).print(str(error), style="red", markup=False)
        return state
    if generator.chat is None:
        print(line, end="", flush=True)
    print_pieces(_noted(pieces, heard))
    return replace(state, said_before=(*said, Message("assistant", "".join(heard))))


def _pieces(generator: Generator, said: Sequence[Message], state: State) -> Iterator[str]:
    """What the model says next; a base model continues all that was said as one text."""
    if generator.chat is None:
        return generator.generate("".join(message.content for message in said), state.options)
    system = [Message("system", state.system)] if state.system else []
    return generator.answer([*system, *said], state.options)


def _noted(pieces: Iterable[str], heard: list[str]) -> Iterator[str]:
    for piece in pieces:
        heard.append(piece)
        yield piece
