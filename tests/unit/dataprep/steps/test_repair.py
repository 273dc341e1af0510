"""What is damaged is repaired, and what is only unusual stays as it is."""

import sysconfig
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_api.v1alpha1.filters import Formatting
from kindling_dataprep.steps.repair import repair

REPAIRS = {
    "mojibake of a quotation mark": ("I donâ€™t know", "I don’t know"),
    "mojibake of an accent": ("voilÃ  le cafÃ©, trÃ¨s bon", "voilà le café, très bon"),
    "mojibake twice over": ("Ã¢â‚¬Å“quotedÃ¢â‚¬Â\x9d", "“quoted”"),
    "one bad line among good ones": ("größer\ndonâ€™t\n本", "größer\ndon’t\n本"),
    "C1 controls that were meant as quotation marks": ("\x93quoted\x94 words", "“quoted” words"),
    "byte order mark": ("\ufefftext", "text"),
    "zero-width space": ("zero\u200bwidth", "zerowidth"),
    "word joiner and soft hyphen": ("soft\u00adhyphen\u2060ated", "softhyphenated"),
    "decomposed accent": ("cafe\u0301", "café"),
    "Windows line ends": ("one\r\ntwo\r\n", "one\ntwo\n"),
    "old Macintosh line ends": ("one\rtwo", "one\ntwo"),
    "Unicode line and paragraph separators": ("one\u2028two\u2029three", "one\ntwo\nthree"),
    "trailing white space": ("one  \n\ttwo\t\n", "one\n\ttwo\n"),
    "control characters": ("bell\x07 and backspace\x08", "bell and backspace"),
    "terminal colours": ("\x1b[1;31mred\x1b[0m text", "red text"),
}

UNTOUCHED = {
    "tabs and indentation": "def f():\n\tif x:\n\t\treturn 1\n    # mixed\n",
    "form feed": "section\n\f\nsection\n",
    "blank lines": "one\n\n\n\ntwo\n\n",
    "German": "Größere Straßen führen über die Brücke",
    "French": "« Voilà », dit-il… où ça ?",
    "Vietnamese": "Tiếng Việt có nhiều dấu",
    "Russian": "Съешь же ещё этих мягких французских булок",
    "Greek": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Chinese": "天地玄黄，宇宙洪荒。",
    "Japanese": "いろはにほへと　ちりぬるを",
    "Korean": "다람쥐 헌 쳇바퀴에 타고파",
    "Arabic": "نص حكيم له سر قاطع وذو شأن عظيم",
    "Hebrew with direction marks": "דג \u200fסקרן\u200e שט",
    "Persian with a zero-width non-joiner": "می\u200cخواهم",
    "Hindi with a zero-width joiner": "क्\u200dष",
    "Khmer with zero-width spaces": "ខ្ញុំ\u200bស្រលាញ់\u200bកម្ពុជា",
    "Thai": "เป็นมนุษย์สุดประเสริฐ",
    "emoji with joiners": "👩\u200d👩\u200d👧 and 🏳\ufe0f\u200d🌈",
    "mathematics": "∀x ∈ ℝ: ⌈x⌉ = −⌊−x⌋",
    "box drawing": "╔═╗\n║ ║\n╚═╝",
    "accented capitals that look like mojibake": "PARCE QUE SUR LEURS PLAQUES IL Y MARQUÉ…",
    "some undecodable characters": "caf\ufffd au lait, and a good deal more of text",
}


@pytest.mark.parametrize(("text", "expected"), REPAIRS.values(), ids=REPAIRS)
def test_damage_is_repaired(text: str, expected: str) -> None:
    assert repair(text, Formatting(max_control_fraction=0.2)) == expected


@pytest.mark.parametrize("text", UNTOUCHED.values(), ids=UNTOUCHED)
def test_good_text_stays_as_it_is(text: str) -> None:
    assert repair(text, Formatting()) == text


def test_mojibake_stays_where_its_repair_is_off() -> None:
    assert repair("donâ€™t", Formatting(repair_mojibake=False)) == "donâ€™t"


@pytest.mark.parametrize(("form", "expected"), [("NFC", "ﬁne １"), ("NFKC", "fine 1")])
def test_the_unicode_form_is_the_one_asked_for(form: str, expected: str) -> None:
    assert repair("ﬁne １", Formatting.model_validate({"unicodeForm": form})) == expected


@pytest.mark.parametrize(
    ("text", "removal"),
    [
        ("x" * 94 + "\x00" * 6, ("controlFraction", 0.06, 0.05)),
        ("x" * 94 + "\ufffd" * 6, ("controlFraction", 0.06, 0.05)),
        ("\x7fELF\x02\x01\x01" + "\x00" * 9, ("controlFraction", 13 / 16, 0.05)),
        ("", ("characters", 0.0, 1.0)),
        (" \n\t\n", ("characters", 0.0, 1.0)),
        ("\ufeff\u200b\n", ("characters", 0.0, 1.0)),
    ],
    ids=["NULs", "undecodable", "an executable", "empty", "white space", "nothing visible"],
)
def test_what_is_no_text_is_removed(text: str, removal: tuple[str, float, float]) -> None:
    assert repair(text, Formatting()) == removal


def test_a_share_of_control_characters_at_the_threshold_stays() -> None:
    assert repair("x" * 95 + "\x00" * 5, Formatting()) == "x" * 95


def test_source_code_loses_nothing_but_trailing_white_space() -> None:
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:60]:
        text = path.read_text()
        expected = "\n".join(line.rstrip(" \t") for line in unicodedata.normalize("NFC", text).split("\n"))
        assert repair(text, Formatting()) == expected, path.name


@given(st.text(st.sampled_from("aé字 \t\r\n\f\x0b\x85\u2028\u200b\ufeff\u0e01\x1b[31m\x07\u0301ﬁ"), max_size=80))
@settings(max_examples=150, deadline=None)
def test_repairing_twice_changes_nothing_more(text: str) -> None:
    spec = Formatting(unicode_form="NFKC", max_control_fraction=1.0)
    once = repair(text, spec)
    assert not isinstance(once, str) or repair(once, spec) == once


def test_long_runs_of_white_space_take_no_longer_than_other_text() -> None:
    text = ("x" + " " * 2_000_000) * 2 + "x"
    assert repair(text, Formatting()) == text
