"""Which texts share an n-gram with an evaluation set, against a plain reference, and what becomes of them."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep.build import build
from kindling_dataprep.output import ledger
from kindling_dataprep.records import InputFile
from kindling_dataprep.steps.decontaminate import evaluation_set, evaluation_texts, leaks
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_storage.commit import read_manifest

QUESTION = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."


def plain_ngrams(text: str, size: int) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


@pytest.mark.parametrize("size", [3, 5, 13])
def test_shared_ngrams_are_those_of_a_plain_reference(size: int) -> None:
    chance = random.Random(size)
    words = ["one", "two", "Three", "four,", "five."]
    known = [" ".join(chance.choices(words, k=chance.randrange(30))) for _ in range(20)]
    texts = [" ".join(chance.choices(words, k=chance.randrange(60))) for _ in range(200)] + known
    reference = {ngram for text in known for ngram in plain_ngrams(text, size)}
    found = evaluation_set("set", known, size)
    whole = {tuple(words) for words in (re.findall(r"\w+", text.lower()) for text in known) if 8 <= len(words) < size}
    assert sum(map(len, found.hashes.values())) == len(reference) + len(whole)
    assert (found.texts, found.short) == (20, sum(len(text.split()) < min(size, 8) for text in known))
    shared = [
        sum(ngram in reference for ngram in plain_ngrams(text, size))
        + sum(plain_ngrams(text, len(short)).count(short) for short in whole)
        for text in texts
    ]
    assert leaks(texts, [found]) == [{"set": count} if count else {} for count in shared]


def test_the_order_of_words_counts_and_their_case_and_punctuation_do_not() -> None:
    texts = ["a b c d", "A, b: (C) d!", "b a c d", "d c b a", "a a c d", "a b c"]
    found = evaluation_set("set", texts[:1], 4)
    assert leaks(texts, [found]) == [{"set": 1}, {"set": 1}, {}, {}, {}, {}]


PASTED = {
    "Chinese": "下列关于光合作用的叙述中，正确的是哪一项？光反应阶段在叶绿体的类囊体薄膜上进行",
    "Chinese, without punctuation": "在直角三角形中两条直角边分别为三和四求斜边的长度是多少",
    "Chinese, short": "我国最长的河流是哪一条它流经几个省区",
    "Japanese": "日本で一番高い山は富士山であり、その高さは三千七百七十六メートルである",
    "Hindi": "भारत की राजधानी नई दिल्ली है और यह यमुना नदी के किनारे बसी हुई है।",
    "Thai": "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทยและมีประชากรมากที่สุดในประเทศตั้งอยู่ริมแม่น้ำเจ้าพระยา",
    "Korean": "대한민국의 수도는 서울이며 한강을 끼고 있는 도시로서 인구가 가장 많은 곳은 어디인지 설명하시오.",
    "Tamil": "தமிழ்நாட்டின் தலைநகரம் சென்னை ஆகும், இந்த நகரம் வங்காள விரிகுடா கடற்கரையில் எந்த ஆண்டு நிறுவப்பட்டது?",
    "nine English words": "What is the capital of the state of Wyoming?",
}
INNOCENT = {
    "Chinese": "正确的是哪一项并不重要，叶绿体的类囊体薄膜上有色素。直角三角形有两条直角边，长度是多少要看情况。",
    "Hindi": "मेरे दोस्त ने कहा कि भारत की राजधानी नई दिल्ली है पर वह वहाँ नहीं रहता।",
    "Thai": "เพื่อนบอกว่ากรุงเทพมหานครเป็นเมืองหลวงของประเทศไทยแต่เขาไม่ได้อยู่ที่นั่น",
    "Tamil": "தமிழ்நாட்டின் தலைநகரம் சென்னை ஆகும் என்று நண்பர் சொன்னார்.",
    "eight English words": "She asked what is the capital of the state of Ohio.",
}


@pytest.mark.parametrize("language", PASTED)
def test_a_question_is_found_where_it_was_pasted(language: str) -> None:
    found = evaluation_set("set", list(PASTED.values()), 13)
    before, after = list(INNOCENT.values())[:2]
    assert found.short == 0
    assert "set" in leaks([f"{before} {PASTED[language]} {after}"], [found])[0]


@pytest.mark.parametrize("language", INNOCENT)
def test_a_document_that_shares_some_words_is_left(language: str) -> None:
    assert leaks([INNOCENT[language]], [evaluation_set("set", list(PASTED.values()), 13)]) == [{}]


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("one two three four five six seven", 1),
        ("one two three four five six seven eight", 0),
        ("一二三四五六七八九十一二三四五", 1),
        ("一二三四五六七八九十一二三四五六", 0),
        ("กขคง" * 7, 1),
        ("กขคง" * 8, 0),
        ("", 1),
    ],
)
def test_texts_below_eight_words_are_counted_as_too_short(text: str, short: int) -> None:
    assert evaluation_set("set", [text], 13).short == short


def parquet(rows: list[dict]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("a.jsonl", b'{"question": "one", "choices": ["two", {"x": "three"}], "label": 4}\n\n"four"\n'),
        ("a.jsonl.gz", gzip.compress(b'["one", "two", "three", "four"]\n')),
        ("a.parquet", parquet([{"a": "one", "b": ["two"], "n": 1}, {"a": "three", "b": ["four"], "n": 2}])),
    ],
    ids=["JSON lines", "gzipped", "Parquet"],
)
def test_all_strings_of_a_record_are_texts_of_an_evaluation_set(path: str, data: bytes) -> None:
    form = "parquet" if path.endswith("parquet") else "jsonl"
    file = InputFile(0, "file:///", path, len(data), "", form)
    assert list(evaluation_texts(io.BytesIO(data), file)) == ["one", "two", "three", "four"]


def run(tmp_path: Path, new_run, *evaluations: dict) -> tuple[DatasetManifest, list[dict]]:
    texts = [
        "Nothing of the kind, though it has as many words as it needs to be long enough for that.",
        f"They asked: {QUESTION.upper().replace(',', ' -')} She did.",
        "Natalia sold clips to 48 of her friends in April, but not one of them paid.",
    ]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    form = {"tokenizer": {"byte": {}}, "validation": {"fraction": 0.0}}
    result = build(
        new_run(tmp_path / "texts.jsonl", decontaminate=list(evaluations), **form), Tracker(ProgressWriter(None))
    )
    store = open_store(result.uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    assert "decontaminate" in store.get("report.html").decode()
    return manifest, ledger.read_removed(store).to_pylist()


def test_a_document_that_leaks_goes_and_the_ledger_names_the_set(
    tmp_path: Path, new_run, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "evaluation.jsonl").write_text(json.dumps({"question": QUESTION, "answer": "72"}) + "\n")
    uri = str(tmp_path / "evaluation.jsonl")
    first, (removed,) = run(tmp_path, new_run, {"uri": uri})
    told = "evaluation.jsonl: 1 of 2 evaluation texts have fewer than 8 words, too few to be recognised"
    assert told in caplog.text
    assert first.documents.removed == {"decontaminate": 1}
    assert (removed["id"], removed["rule"]) == ("0/texts.jsonl#2", "decontaminate")
    assert removed["measure"] == "evaluation.jsonl"
    assert (removed["value"], removed["threshold"]) == (len(plain_ngrams(QUESTION, 13)), 0)
    shorter, _ = run(tmp_path, new_run, {"uri": uri, "ngram": 8})
    assert shorter.documents.removed == {"decontaminate": 2}
    (tmp_path / "evaluation.jsonl").write_text(json.dumps({"question": QUESTION + " Why?"}) + "\n")
    assert run(tmp_path, new_run, {"uri": uri})[0].key != first.key


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("absent.jsonl", None, DataError, r"spec\.decontaminate\[0\]\.uri: found nothing at"),
        ("a.jsonl", "{torn", DataError, r"spec\.decontaminate\[0\]\.uri: found a\.jsonl, which is damaged \("),
        ("a.py", "pass", SpecError, r"spec\.decontaminate\[0\]\.uri: found a\.py, which is code; allowed: jsonl"),
        ("a.jsonl", '{"text": "too short"}', DataError, r"spec\.decontaminate\[0\]\.uri: found no text of 8 words"),
    ],
    ids=["nothing", "torn", "code", "short"],
)
def test_what_is_no_evaluation_set_is_refused(
    tmp_path: Path, new_run, name: str, content: str | None, error: type[Exception], message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(error, match=message):
        run(tmp_path, new_run, {"uri": str(tmp_path / name)})
