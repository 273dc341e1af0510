"""Each rule on documents written for it: one that it just keeps, and one that it just removes."""

import pyarrow as pa
import pytest
from pydantic.alias_generators import to_camel

from kindling_api.v1alpha1.filters import (
    C4,
    MEASURING,
    Adult,
    Filter,
    FineWeb,
    GopherQuality,
    GopherRepetition,
    Language,
    Spam,
)
from kindling_dataprep.steps.decide import Decision, bounds, decide, margins
from kindling_dataprep.steps.measure import MEASURES, measure

Settings = Language | GopherQuality | GopherRepetition | C4 | FineWeb | Spam | Adult

WIDE_OPEN: dict[str, Settings] = {
    "language": Language(min_score=0.0),
    "gopherQuality": GopherQuality(
        min_words=0,
        max_words=10**9,
        min_mean_word_length=0.0,
        max_mean_word_length=1e9,
        max_hash_fraction=1.0,
        max_ellipsis_fraction=1.0,
        max_bullet_line_fraction=1.0,
        max_ellipsis_line_fraction=1.0,
        min_alphabetic_word_fraction=0.0,
        min_stop_words=0,
    ),
    "gopherRepetition": GopherRepetition(**dict.fromkeys(GopherRepetition.model_fields, 1.0)),
    "c4": C4(min_sentences=0, max_curly_brackets=10**9, max_lorem_ipsums=10**9),
    "fineWeb": FineWeb(
        min_punctuated_line_fraction=0.0,
        max_duplicate_line_character_fraction=1.0,
        max_short_line_fraction=1.0,
        max_newlines_per_word=1e9,
    ),
    "spam": Spam(**dict.fromkeys(Spam.model_fields, 1.0)),
    "adult": Adult(max_lexicon_fraction=1.0, max_site_links=10**9),
}

NOT_OF_DOCUMENTS = {
    "language": ("keep",),
    "adult": ("blocklist",),
    "c4": ("require_terminal_punctuation", "min_words_per_line", "max_word_length"),
}
"""Fields that are no bounds on a measure."""


def distinct(count: int, length: int = 5) -> list[str]:
    """Words of letters that never repeat."""
    return [f"{number:0{length}d}".translate(str.maketrans("0123456789", "abcdefghij")) for number in range(count)]


def prose(count: int) -> str:
    return " ".join(distinct(count))


def with_marks(mark: str, times: int) -> str:
    """50 words, of which some carry a mark inside."""
    return " ".join(word + mark + "x" if i < times else word for i, word in enumerate(distinct(50)))


def lines(count: int, marked: int, before: str = "", after: str = "") -> str:
    """Lines of ten words, of which some begin or end with a mark."""
    words = distinct(10 * count)
    plain = [" ".join(words[10 * i : 10 * i + 10]) for i in range(count)]
    return "\n".join(before + line + after if i < marked else line for i, line in enumerate(plain))


def lengths(short: int, long: int, length: int) -> str:
    return " ".join(["the"] * short + ["x" * length] * long)


def pieces(piece: str, times: int, others: int, separator: str = "\n") -> str:
    """Some pieces of 20 characters that occur once, then one piece several times."""
    return separator.join([word + "x" * 15 for word in distinct(others)] + [piece] * times)


def grams(n: int, times: int) -> str:
    """Exactly 1,000 characters in which one n-gram of three-letter words repeats, and nothing else does."""
    gram = " ".join(distinct(n, 3))
    text = "".join(f"{gram} {word} " for word in distinct(times, 4))
    return text + "x" * (1000 - len(text))


# (the bound in the spec, a text that stays, one that goes, and what is measured of the latter) by rule set
RULES: dict[str, list[tuple[str, str, str, float]]] = {
    "language": [("min_score", "The cat sat on the mat, and so did the dog.", "def f(self): return 1", 0.082)],
    "gopherQuality": [
        ("min_words", prose(50), prose(49), 49),
        ("max_words", prose(100_000), prose(100_001), 100_001),
        ("min_mean_word_length", lengths(50, 0, 2), lengths(49, 1, 2), 2.98),
        ("max_mean_word_length", lengths(5, 35, 11), lengths(5, 45, 11), 10.2),
        ("max_hash_fraction", with_marks("#", 5), with_marks("#", 6), 0.12),
        ("max_ellipsis_fraction", with_marks("...", 5), with_marks("…", 6), 0.12),
        ("max_bullet_line_fraction", lines(10, 9, before=" -"), lines(10, 10, before="•"), 1.0),
        ("max_ellipsis_line_fraction", lines(10, 3, after="…"), lines(10, 4, after="... "), 0.4),
        ("min_alphabetic_word_fraction", prose(40) + " 42" * 10, prose(39) + " 42" * 11, 0.78),
        ("min_stop_words", prose(48) + " of the", prose(48) + " the the The", 1),
    ],
    "gopherRepetition": [
        ("max_duplicate_line_fraction", pieces("ab", 4, 6), pieces("ab", 5, 5), 0.4),
        ("max_duplicate_paragraph_fraction", pieces("ab", 4, 6, "\n\n"), pieces("ab", 5, 5, "\n\n"), 0.4),
        ("max_duplicate_line_character_fraction", pieces("x" * 49, 2, 7), pieces("x" * 51, 2, 7), 51 / 250),
        (
            "max_duplicate_paragraph_character_fraction",
            pieces("x" * 49, 2, 7, "\n\n"),
            pieces("x\n" * 29 + "x", 2, 7, "\n\n"),
            59 / 274,
        ),
        ("max_top_2_gram_character_fraction", grams(2, 28), grams(2, 29), 29 * 7 / 1000),
        ("max_top_3_gram_character_fraction", grams(3, 16), grams(3, 17), 17 * 11 / 1000),
        ("max_top_4_gram_character_fraction", grams(4, 10), grams(4, 11), 11 * 15 / 1000),
        ("max_duplicate_5_gram_character_fraction", grams(5, 11), grams(5, 12), 11 * 15 / 1000),
        ("max_duplicate_6_gram_character_fraction", grams(6, 8), grams(6, 9), 8 * 18 / 1000),
        ("max_duplicate_7_gram_character_fraction", grams(7, 7), grams(7, 8), 7 * 21 / 1000),
        ("max_duplicate_8_gram_character_fraction", grams(8, 6), grams(8, 7), 6 * 24 / 1000),
        ("max_duplicate_9_gram_character_fraction", grams(9, 5), grams(9, 6), 5 * 27 / 1000),
        ("max_duplicate_10_gram_character_fraction", grams(10, 4), grams(10, 5), 4 * 30 / 1000),
    ],
    "c4": [
        ("min_sentences", "An ox. Go on! Eh?\nFar) (Gone.) h.", "E.g. an ox. Go! Eh?\nMr. Far) Gone h.", 4),
        ("max_curly_brackets", "no }", "one {", 1),
        ("max_lorem_ipsums", "Lorem and ipsum", "Lorem Ipsum, dolor: lorem ipsum", 2),
    ],
    "fineWeb": [
        ("min_punctuated_line_fraction", lines(25, 3, after="."), lines(25, 2, after="!"), 0.08),
        ("max_duplicate_line_character_fraction", pieces("x" * 10, 2, 4), pieces("x" * 12, 2, 4), 12 / 104),
        ("max_short_line_fraction", pieces("x" * 31, 3, 6), pieces("x" * 31, 3, 7), 0.7),
        ("max_newlines_per_word", prose(10) + "\n" * 3, prose(10) + "\n" * 4, 0.4),
    ],
    "spam": [
        ("max_link_fraction", prose(20) + " www.a.org" * 5, prose(15) + " (https://a.org/b)" * 5, 0.25),
        ("max_keyword_fraction", prose(45) + " Pills," * 5, prose(35) + " Pills, pills!" * 2 + " “pills”", 0.125),
        ("max_phone_price_fraction", prose(50) + " $9.99" * 5, prose(40) + " (555) 123-4567" * 4 + " 9 €", 0.2),
        ("max_bait_fraction", prose(240) + " buy now" * 5, prose(190) + " Buy now" * 3 + " click here" * 2, 0.025),
    ],
    "adult": [
        ("max_lexicon_fraction", prose(297) + " porn" * 3, prose(197) + " Porn, (orgies) XXX!", 0.015),
        ("max_site_links", "www.example.org/xxx http://sex.com", "See https://de.pornhub.com/a and www.cam.xxx", 2),
    ],
}
CASES = [pytest.param(rule, *case, id=f"{rule}-{to_camel(case[0])}") for rule, cases in RULES.items() for case in cases]


@pytest.mark.parametrize(("rule", "bound", "kept", "removed", "value"), CASES)
def test_a_rule_keeps_one_document_and_removes_the_other(
    rule: str, bound: str, kept: str, removed: str, value: float
) -> None:
    wide_open = WIDE_OPEN[rule]
    threshold = getattr(type(wide_open)(), bound)
    filters = [filter_of(rule, wide_open.model_copy(update={bound: threshold}))]
    decisions = decide(measure([kept, removed], filters), filters)
    assert decisions == [None, Decision(rule, measured(bound), value, threshold)]


def test_every_bound_of_every_rule_set_has_its_documents() -> None:
    fields = {
        rule: [field for field in type(settings).model_fields if field not in NOT_OF_DOCUMENTS.get(rule, ())]
        for rule, settings in WIDE_OPEN.items()
    }
    assert {rule: [case[0] for case in cases] for rule, cases in RULES.items()} == fields
    filters = [filter_of(rule, settings) for rule, settings in WIDE_OPEN.items()]
    asked = [(bound.rule, bound.measure) for bound in bounds(filters)]
    assert asked == [(rule, measured(field)) for rule in RULES for field in fields[rule]]


def test_good_prose_passes_every_rule_at_its_published_threshold() -> None:
    filters = [filter_of(rule, type(settings)()) for rule, settings in WIDE_OPEN.items()]
    text = (
        "The miller rose before the sun, for there was much to do. His daughter had already carried water from the "
        "brook and lit the fire. They spoke little. All morning carts came down from the hills, laden with barley and "
        "rye, and the great wheel turned without rest. By noon a merchant asked what flour would cost him in winter. "
        "Nobody could say."
    )
    assert decide(measure([text], filters), filters) == [None]


def test_the_first_broken_rule_in_the_fixed_order_is_the_reason_whatever_the_order_in_the_spec() -> None:
    filters = [
        filter_of(rule, type(settings)()) for rule, settings in reversed(WIDE_OPEN.items()) if rule != "language"
    ]
    text = "####### ######## same\n" * 3  # too few words, too many hashes, nothing but repetition
    assert decide(measure([text], filters), filters) == [Decision("gopherQuality", "words", 3.0, 50.0)]


def test_a_rule_set_given_twice_is_asked_with_both_thresholds() -> None:
    loose, strict = GopherQuality(), WIDE_OPEN["gopherQuality"].model_copy(update={"min_words": 60})
    filters = [
        filter_of("gopherQuality", loose.model_copy(update={"min_stop_words": 0})),
        filter_of("gopherQuality", strict),
    ]
    decisions = decide(measure([prose(55), prose(60)], filters), filters)
    assert decisions == [Decision("gopherQuality", "words", 55.0, 60.0), None]


@pytest.mark.parametrize(
    ("sentences", "brackets", "documents", "expected"),
    [
        (50, 0, {50: 0, 60: 0, 75: 0, 100: 0, 1000: 0}, [0.0, 0.2, 0.5, 1.0, 1.0]),
        (0, 10, {1: 10, 2: 8, 3: 5, 4: 0}, [0.0, 0.2, 0.5, 1.0]),
        (50, 10, {50: 0, 75: 5, 1000: 10, 60: 5}, [0.5, 0.5, 0.5, 0.35]),
        (0, 0, {50: 0}, [0.0]),
    ],
    ids=["a minimum", "a maximum", "the mean of both", "a bound of 0 says nothing"],
)
def test_a_margin_is_the_mean_distance_from_the_bounds_as_a_share_of_each(
    sentences: int, brackets: int, documents: dict[int, int], expected: list[float]
) -> None:
    filters = [Filter(c4=C4(min_sentences=sentences, max_curly_brackets=brackets))]
    columns = {
        "sentences": list(documents),
        "curlyBrackets": list(documents.values()),
        "loremIpsums": [0] * len(expected),
    }
    measures = pa.table({f"c4.{name}": values for name, values in columns.items()})
    assert decide(measures, filters) == [None] * len(expected)
    assert margins(measures, filters).tolist() == pytest.approx(expected)


def test_a_documents_margin_does_not_depend_on_those_beside_it() -> None:
    filters = [filter_of(rule, type(settings)()) for rule, settings in WIDE_OPEN.items()]
    measures = measure([prose(count) for count in range(50, 90)], filters)
    alone = [margins(measures.slice(row, 1), filters).item() for row in range(40)]
    assert margins(measures, filters).tolist() == alone


def test_the_specification_knows_the_rule_sets_that_measure() -> None:
    assert set(MEASURING) == set(MEASURES)


def measured(bound: str) -> str:
    return to_camel(bound.removeprefix("min_").removeprefix("max_"))


def filter_of(rule: str, settings: Settings) -> Filter:
    return Filter.model_validate({rule: settings})
