"""C4's line rules: lines that stay and lines that go, side by side, and against a plain reading of the paper."""

import re
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_api.v1alpha1.filters import C4
from kindling_dataprep.steps.c4 import c4_lines

PHRASES = ["javascript", "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies"]


@pytest.mark.parametrize(
    ("kept", "removed"),
    [
        pytest.param("The end has come.", "The end has come", id="no end"),
        pytest.param('He said "it ends!"', "He said it ends,", id="quotation mark"),
        pytest.param("Is that the end?", "This may be the end...", id="ellipsis"),
        pytest.param("Three words stay.", "Two don't.", id="too few words"),
        pytest.param(f"A word of {'x' * 999}.", f"A word of {'x' * 1000}.", id="too long a word"),
        pytest.param("Coffee has no script.", "Enable JavaScript to go on.", id="javascript"),
        pytest.param("We eat cookies at four.", "By going on you accept that we Use Cookies.", id="cookies"),
        pytest.param("The policy is sound.", "Read our Privacy Policy here.", id="policy"),
    ],
)
def test_a_line_that_c4_wants_stays_and_one_that_it_does_not_goes(kept: str, removed: str) -> None:
    assert c4_lines(f"{removed}\n  {kept} \n\n{removed}", C4()) == (kept, 2)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("It was so.[12]", "It was so."),
        ("It was [citation needed] so. [edit]", "It was  so."),
        ("The list[0] of [x] it.", "The list of [x] it."),
    ],
)
def test_the_marks_of_an_encyclopedia_are_cut_out(line: str, left: str) -> None:
    assert c4_lines(line, C4()) == (left, 0)


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        pytest.param(C4(require_terminal_punctuation=False), "Some text without an end", id="any end"),
        pytest.param(C4(min_words_per_line=0), "Stop!", id="any number of words"),
        pytest.param(C4(min_words_per_line=0, max_word_length=4), "", id="a shorter word"),
        pytest.param(C4(), "", id="as published"),
    ],
)
def test_the_line_rules_can_be_set(spec: C4, left: str) -> None:
    assert c4_lines("Some text without an end\nStop!\n[edit]", spec)[0] == left


def test_the_lines_of_the_standard_library_are_as_defined() -> None:
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:25]:
        text = file.read_text(errors="replace")
        assert c4_lines(text, C4()) == as_defined(text)


@given(st.lists(st.sampled_from(["the", "x" * 1001, "end.", "end...", "[1]", "[edit]", "Use Cookies", "\n", '"'])))
@settings(max_examples=60, deadline=None)
def test_the_lines_of_any_text_are_as_defined(words: list[str]) -> None:
    text = " ".join(words)
    assert c4_lines(text, C4()) == as_defined(text)


def as_defined(text: str) -> tuple[str, int]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = []
    for line in lines:
        line = re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", line).rstrip()
        ended = line[-1:] in {".", "?", "!", '"', "'"} and line[-3:] != "..."
        words = line.split()
        unwanted = any(phrase in line.lower() for phrase in [*PHRASES, "use cookies"])
        if ended and len(words) >= 3 and all(len(word) <= 1000 for word in words) and not unwanted:
            kept.append(line)
    return "\n".join(kept), len(lines) - len(kept)
