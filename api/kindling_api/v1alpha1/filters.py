"""The rule sets that decide which documents stay, each with its published thresholds as defaults.

Phases are fixed, whatever the order in the YAML: repair and line removal, then measures, then decisions.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.rules import OneOf, cel, check_order
from kindling_api.v1alpha1.storage import Uri

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
LANGUAGE_PATTERN = r"^[a-z]{2,3}$"

LanguageCode = Annotated[str, Field(pattern=LANGUAGE_PATTERN, max_length=3)]


class GopherQuality(Spec):
    """Quality rules of Rae et al. 2021 (Gopher, arXiv:2112.11446, appendix A.1.1).

    A document in another language than English has the language's stop words, and where a threshold is left at its
    default, that of FineWeb-2 (arXiv:2506.20920). In Chinese and Japanese two characters count as a word, in Thai, Lao,
    Khmer and Burmese four.
    """

    model_config = cel(
        ("self.?minWords.orValue(50) <= self.?maxWords.orValue(100000)", "minWords must be at most maxWords"),
        (
            "self.?minMeanWordLength.orValue(3.0) <= self.?maxMeanWordLength.orValue(10.0)",
            "minMeanWordLength must be at most maxMeanWordLength",
        ),
    )

    min_words: Annotated[int, Field(ge=0)] = 50
    """Fewest words; words are runs of non-space characters with at least one that is no symbol."""
    max_words: Annotated[int, Field(ge=1)] = 100_000
    """Most words."""
    min_mean_word_length: Annotated[float, Field(ge=0)] = 3.0
    """Lowest mean length of a word, in characters."""
    max_mean_word_length: Annotated[float, Field(ge=0)] = 10.0
    """Highest mean length of a word, in characters."""
    max_hash_fraction: Fraction = 0.1
    """Most `#` signs for each word."""
    max_ellipsis_fraction: Fraction = 0.1
    """Most ellipses (`...` or `…`) for each word."""
    max_bullet_line_fraction: Fraction = 0.9
    """Largest fraction of lines that start with a bullet (`•` or `-`)."""
    max_ellipsis_line_fraction: Fraction = 0.3
    """Largest fraction of lines that end with an ellipsis."""
    min_alphabetic_word_fraction: Fraction = 0.8
    """Smallest fraction of words with at least one letter."""
    min_stop_words: Annotated[int, Field(ge=0, le=8)] = 2
    """Fewest distinct words out of: the, be, to, of, and, that, have, with; or those of the document's language."""

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        check_order("minWords", self.min_words, "maxWords", self.max_words)
        lengths = self.min_mean_word_length, self.max_mean_word_length
        check_order("minMeanWordLength", lengths[0], "maxMeanWordLength", lengths[1])
        return self


class GopherRepetition(Spec):
    """Repetition rules of Rae et al. 2021 (Gopher, arXiv:2112.11446, table A1).

    Thresholds left at their defaults are FineWeb-2's in other languages than English, as for `gopherQuality`.
    """

    max_duplicate_line_fraction: Fraction = 0.30
    """Largest fraction of lines that occurred before in the document."""
    max_duplicate_paragraph_fraction: Fraction = 0.30
    """Largest fraction of paragraphs that occurred before in the document."""
    max_duplicate_line_character_fraction: Fraction = 0.20
    """Largest fraction of characters in lines that occurred before."""
    max_duplicate_paragraph_character_fraction: Fraction = 0.20
    """Largest fraction of characters in paragraphs that occurred before."""
    max_top_2_gram_character_fraction: Fraction = 0.20
    """Largest fraction of characters in the most frequent 2-gram of words."""
    max_top_3_gram_character_fraction: Fraction = 0.18
    """Largest fraction of characters in the most frequent 3-gram of words."""
    max_top_4_gram_character_fraction: Fraction = 0.16
    """Largest fraction of characters in the most frequent 4-gram of words."""
    max_duplicate_5_gram_character_fraction: Fraction = 0.15
    """Largest fraction of characters in repeated 5-grams of words."""
    max_duplicate_6_gram_character_fraction: Fraction = 0.14
    """Largest fraction of characters in repeated 6-grams of words."""
    max_duplicate_7_gram_character_fraction: Fraction = 0.13
    """Largest fraction of characters in repeated 7-grams of words."""
    max_duplicate_8_gram_character_fraction: Fraction = 0.12
    """Largest fraction of characters in repeated 8-grams of words."""
    max_duplicate_9_gram_character_fraction: Fraction = 0.11
    """Largest fraction of characters in repeated 9-grams of words."""
    max_duplicate_10_gram_character_fraction: Fraction = 0.10
    """Largest fraction of characters in repeated 10-grams of words."""


class C4(Spec):
    """Line and document rules of Raffel et al. 2020 (C4, arXiv:1910.10683, section 2.2).

    Sentences end with the marks of the document's language (`。`, `؟`, `।`); in Thai and Lao none is asked for.
    """

    require_terminal_punctuation: bool = True
    """Keep only lines that end in a full stop, question mark, exclamation mark or quotation mark."""
    min_words_per_line: Annotated[int, Field(ge=0)] = 3
    """Fewest words in a line that is kept."""
    max_word_length: Annotated[int, Field(ge=1)] = 1000
    """A line with a longer word is removed."""
    min_sentences: Annotated[int, Field(ge=0)] = 5
    """Fewest sentences in a document, counted after lines were removed."""
    max_curly_brackets: Annotated[int, Field(ge=0)] = 0
    """Most curly brackets in the lines that stay; code has them and prose does not."""
    max_lorem_ipsums: Annotated[int, Field(ge=0)] = 0
    """Most occurrences of the filler text `lorem ipsum` in the lines that stay."""


class FineWeb(Spec):
    """Quality rules of Penedo et al. 2024 (FineWeb, arXiv:2406.17557, section 3.6).

    Thresholds left at their defaults are FineWeb-2's in other languages than English, as for `gopherQuality`; there
    short lines remove nothing.
    """

    min_punctuated_line_fraction: Fraction = 0.12
    """Smallest fraction of lines that end in punctuation."""
    max_duplicate_line_character_fraction: Fraction = 0.1
    """Largest fraction of characters in duplicated lines (the paper's 0.1; its code uses 0.01)."""
    max_short_line_fraction: Fraction = 0.67
    """Largest fraction of lines of at most 30 characters."""
    max_newlines_per_word: Annotated[float, Field(ge=0)] = 0.3
    """Most line ends for each word."""


class Language(Spec):
    """Keep documents of the named languages, identified offline."""

    keep: Annotated[tuple[LanguageCode, ...], Field(min_length=1, max_length=64)] = ("en",)
    """ISO 639 codes of the languages that stay; `zxx` is what is no language, such as code."""
    min_score: Fraction = 0.65
    """Smallest confidence of the identification."""


class Spam(Spec):
    """Floods of links, keywords, prices and selling phrases; what occurs fewer than five times is none."""

    max_link_fraction: Fraction = 0.2
    """Largest fraction of words that are links."""
    max_keyword_fraction: Fraction = 0.1
    """Largest fraction of words that one word of four letters or more makes up."""
    max_phone_price_fraction: Fraction = 0.1
    """Largest fraction of words that are telephone numbers or prices."""
    max_bait_fraction: Fraction = 0.02
    """Most selling phrases (`buy now`, `click here`, `free shipping`) for each word."""


class Boilerplate(Spec):
    """Remove lines that repeat across documents of one host, and navigation, cookie and legal notices.

    A document without a URL belongs to its source. Not for code, whose lines repeat for good reasons.
    """

    min_documents: Annotated[int, Field(ge=2)] = 5
    """A line is boilerplate when at least this many different documents of its host hold it."""
    max_line_length: Annotated[int, Field(ge=1)] = 200
    """Longer lines, in characters, are never taken for boilerplate."""
    notices: bool = True
    """Whether lines worded as notices go wherever they are (`Home | About us`, `All rights reserved`; in English)."""


class Adult(Spec):
    """Remove adult content by lexicon, and by links to adult sites."""

    blocklist: Uri | None = None
    """A file of domains, one a line, added to the built-in list."""
    max_lexicon_fraction: Fraction = 0.01
    """Largest fraction of words out of the lexicon; fewer than three such words count as none."""
    max_site_links: Annotated[int, Field(ge=0)] = 0
    """Most links to adult sites."""


class Formatting(Spec):
    """Repair encoding (mojibake), Unicode form, line ends and control characters; drop what is not text."""

    unicode_form: Literal["NFC", "NFKC"] = "NFC"
    """The Unicode normalisation form of the result."""
    repair_mojibake: bool = True
    """Undo text that was decoded with the wrong encoding (`donâ€™t` → `don’t`)."""
    max_control_fraction: Fraction = 0.05
    """A document with a larger fraction of control or undecodable characters is binary, and removed."""


class PersonalInformation(Spec):
    """E-mail and IP addresses, telephone numbers and payment cards."""

    action: Literal["redact", "drop"] = "redact"
    """Replace what was found by a placeholder, or drop the document."""
    kinds: Annotated[tuple[Literal["email", "ip", "phone", "card"], ...], Field(min_length=1, max_length=4)] = (
        "email",
        "ip",
        "phone",
        "card",
    )
    """What to look for."""


class Filter(OneOf):
    """One rule set; its key names it and its value overrides its thresholds."""

    gopher_quality: GopherQuality | None = None
    """Quality rules of Gopher."""
    gopher_repetition: GopherRepetition | None = None
    """Repetition rules of Gopher."""
    c4: C4 | None = None
    """Line and document rules of C4."""
    fine_web: FineWeb | None = None
    """Quality rules of FineWeb."""
    language: Language | None = None
    """Language identification."""
    spam: Spam | None = None
    """Links, keywords, prices."""
    boilerplate: Boilerplate | None = None
    """Lines repeated across a host."""
    adult: Adult | None = None
    """Adult content."""
    formatting: Formatting | None = None
    """Encoding and formatting repair."""
    pii: PersonalInformation | None = None
    """Personal information."""


MEASURING = ("gopherQuality", "gopherRepetition", "c4", "fineWeb", "language", "spam", "adult")
"""The rule sets that decide by measures of a whole document."""
