"""The rules of Gopher, FineWeb and C4 in other languages: good prose stays in each, and what is none goes."""

import json
from pathlib import Path

import pytest

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec, Source
from kindling_api.v1alpha1.filters import C4, Filter, FineWeb, GopherQuality, GopherRepetition
from kindling_dataprep.records import Document
from kindling_dataprep.steps import char_spans
from kindling_dataprep.steps.clean_batch import CleanedBatch, clean_batch
from kindling_dataprep.steps.language import languages_of
from kindling_dataprep.steps.languages import language_rules
from kindling_dataprep.steps.measure import measure
from kindling_dataprep.steps.sentences import ends_sentence, sentences_inside
from kindling_dataprep.steps.words import split_words

DECLARATION: dict[str, list[str]] = json.loads(
    (Path(__file__).parents[4] / "bench/languages/declaration.json").read_text()
)
PROSE = {code: "\n".join(paragraphs) for code, paragraphs in DECLARATION.items()}
FILTERS = (
    Filter(gopher_quality=GopherQuality()),
    Filter(gopher_repetition=GopherRepetition()),
    Filter(fine_web=FineWeb()),
    Filter(c4=C4()),
)


def cleaned(text: str, *filters: Filter) -> CleanedBatch:
    spec = DatasetBuildSpec(sources=(Source(uri="./texts"),), filters=filters or FILTERS)
    return clean_batch([Document(id="0/a.txt", source=0, text=text)], spec)


def reason(text: str, *filters: Filter) -> str | None:
    removed = cleaned(text, *filters).removed
    return f"{removed[0].rule}.{removed[0].measure}" if removed else None


@pytest.mark.parametrize("language", PROSE)
def test_good_prose_stays_in_its_language(language: str) -> None:
    outcome = cleaned(PROSE[language])
    assert [removal.rule for removal in outcome.removed] == []
    assert outcome.measures["rulesLanguage"].to_pylist() == [language]


@pytest.mark.parametrize("language", PROSE)
def test_a_paragraph_over_and_over_goes_in_any_language(language: str) -> None:
    paragraph = max(DECLARATION[language], key=len)
    assert reason("\n".join([paragraph] * 20), Filter(gopher_repetition=GopherRepetition())) is not None
    assert reason(paragraph * 20, Filter(gopher_repetition=GopherRepetition())) is not None


@pytest.mark.parametrize(
    ("menu", "removed"),
    [
        ("首页\n新闻\n体育\n财经\n娱乐\n科技\n汽车\n房产\n教育\n视频\n" * 3, "gopherQuality.words"),
        ("首页新闻体育财经娱乐科技\n" * 20, "gopherQuality.stopWords"),
        ("\n".join(chr(0x4E00 + i) * 2 + chr(0x5E00 + i) * 4 + "的在" for i in range(60)), "fineWeb.punctuatedLine"),
    ],
    ids=["too short", "no stop words", "lines without an end"],
)
def test_a_chinese_menu_goes(menu: str, removed: str) -> None:
    filters = [Filter(gopher_quality=GopherQuality()), Filter(fine_web=FineWeb())]
    assert (reason(menu, *filters) or "").startswith(removed)


def test_a_threshold_that_the_spec_sets_holds_for_all_languages() -> None:
    quality = GopherQuality()
    assert reason(PROSE["ta"], Filter(gopher_quality=quality)) is None
    strict = quality.model_copy(update={"max_mean_word_length": 9.0})
    assert reason(PROSE["ta"], Filter(gopher_quality=strict)) == "gopherQuality.meanWordLength"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (PROSE["en"], "en"),
        ("The names of the houses and of the streets: Grünwald, Schloß, Königstraße.", "en"),
        ("def f(self):\n    return self.x\n", "en"),
        ("12 + 34 = 46", "en"),
        ("", "en"),
        ("人人生而自由", "zh"),
        ("人人皆得享受人權與自由，不分種族、膚色、性別、語言。", "zh"),
        ("東京タワーへ行きます", "ja"),
        ("Βιβλίο", "el"),
        ("สวัสดี", "th"),
        ("நன்றி", "ta"),
        ("Alle Menschen sind frei und gleich an Würde und Rechten geboren.", "de"),
    ],
)
def test_a_text_gets_the_rules_of_its_language_and_english_where_none_is_known(text: str, language: str) -> None:
    assert languages_of([text]) == [language]


def test_every_language_has_whole_rules() -> None:
    rules = language_rules()
    assert len(rules) > 100
    assert {len(each.thresholds) for each in rules.values()} == {16}
    assert all(each.stop_words for each in rules.values())
    assert rules["zh"].thresholds["gopherQuality", "meanWordLength", False] == 5.0
    assert rules["th"].thresholds["gopherRepetition", "duplicate10GramCharacterFraction", False] == 0.111
    assert rules["ru"].thresholds["fineWeb", "punctuatedLineFraction", True] == 0.231


@pytest.mark.parametrize(
    ("line", "ends"),
    [
        ("你好。", True),
        ("他说：“你好！”", True),
        ("「はい。」", True),
        ("هل أنت بخير؟", True),
        ("यह एक वाक्य है।", True),
        ("ሰላም።", True),
        ("နေကောင်းလား။", True),
        ("(Ende.)", True),
        ("首页", False),
        ("你好，", False),
        ("Kapitel 3)", False),
        ("", False),
    ],
)
def test_a_line_ends_with_the_marks_of_its_script(line: str, ends: bool) -> None:
    assert ends_sentence(line) is ends


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("一。二！三？四。", 3),
        ("「一。」二。", 1),
        ("Er kam. Sie ging! Wohin?\nWeit.", 2),
        ("Das kostet 3.14 Euro.", 0),
        ("एक। दो। तीन।", 2),
    ],
)
def test_sentences_end_inside_of_lines(text: str, inside: int) -> None:
    assert sentences_inside(text) == inside


def test_where_no_mark_is_written_white_space_ends_a_sentence() -> None:
    assert sentences_inside("หนึ่ง สอง สาม\nสี่ ห้า", unpunctuated=True) == 3


@pytest.mark.parametrize(
    ("text", "language", "words", "factor"),
    [
        ("我用Python写程序。", "zh", "我 用 Python 写 程 序 。", 2),
        ("ที่นี่ ดี", "th", "ที่ นี่ ดี", 4),
        ("நல்ல நாள், நண்பா!", "ta", "நல்ல நாள், நண்பா!", 1),
        ("He said 你好 to me", "en", "He said 你好 to me", 1),
    ],
)
def test_words_of_a_text_without_spaces_are_its_characters(text: str, language: str, words: str, factor: int) -> None:
    found = split_words([text], [language])
    ends = (found.offsets + found.lengths).tolist()
    assert [text[a:b] for a, b in zip(found.offsets.tolist(), ends, strict=True)] == words.split(" ")
    assert found.factors.tolist() == [factor]
    assert found.alphabetic.tolist() == [any(map(str.isalpha, word)) for word in words.split(" ")]


@pytest.mark.parametrize("block", [50, 1 << 15])
def test_texts_in_many_languages_measure_the_same_alone_and_together(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(char_spans, "BLOCK", block)
    together = measure(list(PROSE.values()), FILTERS, languages=list(PROSE)).to_pylist()
    alone = [measure([text], FILTERS, languages=[code]).to_pylist()[0] for code, text in PROSE.items()]
    assert together == alone
