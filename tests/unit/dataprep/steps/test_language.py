"""Documents stay in the languages named, and go in others, or where the language is in doubt."""

import sysconfig
from pathlib import Path

import pytest

from kindling_api.v1alpha1.filters import Filter, Language
from kindling_dataprep.steps import language as language_module
from kindling_dataprep.steps.code import is_code
from kindling_dataprep.steps.decide import Decision, decide
from kindling_dataprep.steps.language import CHARACTERS_READ, languages
from kindling_dataprep.steps.measure import measure

TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos y, dotados como están de razón.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "ar": "يولد جميع الناس أحراراً متساوين في الكرامة والحقوق.",
}


@pytest.mark.parametrize("code", TEXTS)
def test_a_language_is_told_from_the_others(code: str) -> None:
    filters = [Filter(language=Language(keep=(code,)))]
    decisions = decide(measure(list(TEXTS.values()), filters), filters)
    assert [decision is None for decision in decisions] == [other == code for other in TEXTS]
    assert {decision.measure for decision in decisions if decision} == {f"language={c}" for c in TEXTS if c != code}


def test_several_languages_may_stay() -> None:
    filters = [Filter(language=Language(keep=("de", "ja")))]
    decisions = decide(measure(list(TEXTS.values()), filters), filters)
    assert [code for code, decision in zip(TEXTS, decisions, strict=True) if decision is None] == ["de", "ja"]


def test_a_language_in_doubt_goes_by_its_score() -> None:
    filters = [Filter(language=Language())]
    (decision,) = decide(measure(["def f(self): return 1"], filters), filters)
    assert decision is not None
    assert (decision.measure, decision.threshold) == ("score", 0.65)
    assert decision.value < 0.65


@pytest.mark.parametrize("text", ["", "12 + 34 = 46", "…\n---"])
def test_a_text_without_a_letter_is_in_no_language(text: str) -> None:
    filters = [Filter(language=Language())]
    assert decide(measure([text], filters), filters) == [Decision("language", "language=und", 0.0, None)]


def test_only_the_beginning_is_read() -> None:
    beginning = (TEXTS["en"] + " ") * 20
    text = beginning[:CHARACTERS_READ] + TEXTS["de"] * 1000
    one, other = measure([beginning, text], [Filter(language=Language())]).to_pylist()
    assert one == other


@pytest.mark.parametrize(
    "text",
    [
        Path(language_module.__file__).read_text(),
        "#include <stdio.h>\n\nint main(void) {\n  int n = 0;\n  /* counts */\n  n += 1;\n  return n;\n}\n",
        "SELECT a, b\nFROM things t\nJOIN others o ON o.id = t.id\nWHERE t.n > 3\nORDER BY a;\n",
        'package main\n\nimport "fmt"\n\nfunc main() {\n\tx := 1\n\tfmt.Println(x)\n}\n',
        "const f = (x) => {\n  if (x === 1) {\n    return x;\n  }\n};\nexport default f;\n",
    ],
    ids=["Python", "C", "SQL", "Go", "JavaScript"],
)
def test_code_is_in_no_language(text: str) -> None:
    filters = [Filter(language=Language(keep=("zxx",)))]
    assert decide(measure([text], filters), filters) == [None]


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md", "LICENSE", "docs/alignment.md", "docs/operations.md"])
def test_prose_with_examples_of_code_in_it_is_none(path: str) -> None:
    assert not is_code((Path(__file__).parents[4] / path).read_text())


@pytest.mark.slow
def test_the_standard_library_is_code() -> None:
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    assert sum(is_code(file.read_text(errors="replace")) for file in files) >= 0.9 * len(files)


def test_the_codes_are_those_that_a_spec_may_name() -> None:
    assert {*TEXTS, "zxx"} <= set(languages())
    assert Language(keep=tuple(languages()[:64]))
