"""What is shown of a text: whole characters, and nothing of a stop string."""

from __future__ import annotations

import random

import pytest
from tokenizers import Tokenizer

from kindling_serve.detokenizer import Detokenizer


def say(tokenizer: Tokenizer, text: str, stops: list[str]) -> tuple[list[str], bool]:
    """The pieces that are shown while `text` is said byte by byte, the last one at its end."""
    detokenizer, pieces = Detokenizer(tokenizer, stops), []
    for token in tokenizer.encode(text).ids:
        pieces.append(detokenizer.add(token))
        if detokenizer.stopped:
            return pieces, True
    return [*pieces, detokenizer.end()], detokenizer.stopped


@pytest.mark.parametrize(
    ("text", "stops", "shown", "stopped"),
    [
        ("one two", [], "one two", False),
        ("one STOP two", ["STOP"], "one ", True),
        ("one STO two", ["STOP"], "one STO two", False),
        ("one STO", ["STOP"], "one STO", False),
        ("aaab", ["aab"], "a", True),
        ("xabcd", ["bcd", "abc"], "x", True),
        ("ends with it.", ["it."], "ends with ", True),
        ("naïve 🙂!", ["🙂"], "naïve ", True),
        ("STOP", ["STOP"], "", True),
    ],
)
def test_text_is_shown_up_to_the_first_stop_string(
    text: str, stops: list[str], shown: str, stopped: bool, tokenizer: Tokenizer
) -> None:
    pieces, was_stopped = say(tokenizer, text, stops)
    assert ("".join(pieces), was_stopped) == (shown, stopped)


def test_only_what_may_begin_a_stop_string_is_held_back(tokenizer: Tokenizer) -> None:
    assert say(tokenizer, "abXYc", ["XYZ"])[0] == ["a", "b", "", "", "XYc", ""]


def test_no_piece_ever_shows_more_than_the_cut_text(tokenizer: Tokenizer) -> None:
    choices = random.Random(1)
    for _ in range(300):
        text = "".join(choices.choices("ab", k=20))
        stops = ["".join(choices.choices("ab", k=choices.randint(1, 6))) for _ in range(choices.randint(0, 3))]
        first = min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)
        shown = "".join(say(tokenizer, text, stops)[0])
        if first is None:
            assert shown == text
        else:  # the stop string that is complete first ends the text
            assert text.startswith(shown) and not any(stop in shown for stop in stops)
