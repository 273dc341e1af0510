"""Data is read from any file, what is dead in it is found and named, and what is left is whole."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kindling_api.errors import DataError
from kindling_api.v1alpha1.alignment_run import AlignmentData
from kindling_storage import open_store
from kindling_storage.jsonl import MAX_RECORD_BYTES
from kindling_trainer.align.data.check import check_findings
from kindling_trainer.align.data.read import DataSource, open_sources
from kindling_trainer.align.data.tokenize import read_dialogues, read_pairs, read_prompts
from kindling_trainer.chat.template import ChatTemplate

MakeSources = Callable[..., list[DataSource]]
MakeTemplate = Callable[..., ChatTemplate]
SHARED = Path(__file__).parents[6] / "shared" / "data"


def ask(question: str, *answers: str) -> dict[str, Any]:
    """A dialogue of one question, or of more of the same."""
    turns = [[("user", question), ("assistant", answer)] for answer in answers]
    return {"messages": [{"role": role, "content": text} for turn in turns for role, text in turn]}


def pair(chosen: str, rejected: str, prompt: str = "Why?") -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def opened(*uris: str) -> list[DataSource]:
    return open_sources([AlignmentData(uri=uri) for uri in uris], open_store)


def refuse(error: DataError) -> None:
    raise error


def test_one_record_is_the_same_in_every_kind_of_file(tmp_path: Path) -> None:
    records = [ask("Why?", "So.") | {"note": None}, ask("Où ?", "Là.")]
    lines = "".join(json.dumps(record) + "\n\n" for record in records).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(lines))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "d.parquet")
    (tmp_path / "README.md").write_text("not data")
    (tmp_path / "dataset_infos.json").write_text('{"what": "describes the others"}')
    for found in (opened(str(tmp_path)), opened(*(f"{tmp_path}/{name}.*" for name in "abcd"))):
        messages = [record.fields["messages"] for source in found for record in source.records(refuse)]
        assert messages == [record["messages"] for record in records] * 4
    places = [record.place for source in opened(str(tmp_path)) for record in source.records(refuse)]
    assert places[:2] == ["a.jsonl:1", "a.jsonl:3"] and places[-1] == "d.parquet:2"


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["plain", "gz", "zst"])
def test_json_holds_an_array_or_lines(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    records = [ask("Où ?", "x" * 3_000) for _ in range(500)]
    suffix = {bytes: "", gzip.compress: ".gz"}.get(pack, ".zst")
    for name, text in (
        ("array", json.dumps(records, indent=1, ensure_ascii=False)),
        ("bare", "\ufeff" + json.dumps(records, separators=(",", ":"))),
        ("lines", "\n".join(map(json.dumps, records))),
    ):
        path = tmp_path / f"{name}.json{suffix}"
        path.write_bytes(pack(text.encode()))
        (source,) = opened(str(path))
        read = list(source.records(refuse))
        assert [record.fields for record in read] == records
        assert read[-1].place == f"{path.name}:500"


ARRAYS: dict[str, tuple[str, str]] = {
    "not closed": ('[{"prompt": "x"}', "data.json:2: found the end of the file; allowed: an array"),
    "no comma": ('[{"prompt": "x"} {"prompt": "x"}]', "data.json:2: found '{' instead of ','"),
    "cut": ('[{"prompt": "x"}, {"prom', "data.json:2: found no JSON ("),
    "after a comma": ('[{"prompt": "x"},]', "data.json:2: found no JSON ("),
    "deep": ("[" * 100_000, "data.json:1: found no JSON ("),
    "endless": ('[{"prompt": "' + "x" * (17 << 20), "data.json:1: found no end of a record within 16,777,216"),
    "texts": ('["a", "b", {"prompt": "x"}]', "data.json:1: found a str; allowed: an array of JSON objects."),
}


@pytest.mark.parametrize(("content", "message"), ARRAYS.values(), ids=ARRAYS)
def test_what_is_wrong_with_an_array_is_told(
    tmp_path: Path, template: MakeTemplate, content: str, message: str
) -> None:
    (tmp_path / "data.json").write_text(content)
    with pytest.raises(DataError) as caught:
        read_prompts(opened(f"{tmp_path}/data.json"), template(), longest=64)
    assert str(caught.value).startswith(message)


UNREADABLE: dict[str, tuple[bytes, str]] = {
    "no JSON": (b'{"prompt": "x"}\n{oops\n', "data.jsonl:2: found '{oops"),
    "a list": (b"[1]\n", "data.jsonl:1: found a list; allowed: a JSON object in each line"),
    "mixed": (
        b'{"prompt": "x", "completion": "y"}\n{"messages": []}\n',
        "data.jsonl:2: found the fields messages; allowed: the fields of promptCompletion, as in the first record: "
        "prompt, completion or prompt, response or question, answer or question, response or instruction, response.",
    ),
    "role": (
        b'{"messages": [{"role": "bot", "content": "x"}]}\n',
        "data.jsonl:1: found the role 'bot' in messages; allowed: system, user or assistant.",
    ),
}


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, template: MakeTemplate, content: bytes, message: str
) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_dialogues(opened(f"{tmp_path}/data.jsonl"), template(), context=64)
    assert str(caught.value).startswith(message)


def test_few_bad_lines_are_passed_over_and_told(tmp_path: Path, template: MakeTemplate) -> None:
    lines = [json.dumps(ask("Why?", f"So {number}.")) for number in range(200)]
    lines[120] = lines[120][:30]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    data, findings = read_dialogues(opened(f"{tmp_path}/data.jsonl"), template(), context=64)
    assert (len(data), findings.kept, findings.records) == (199, 199, 200)
    (sentence,) = findings.sentences()
    assert sentence.startswith("1 of 200 records cannot be read: data.jsonl:121: found '{")


def test_a_file_that_unpacks_to_one_enormous_line_is_refused(tmp_path: Path, template: MakeTemplate) -> None:
    (tmp_path / "data.jsonl.gz").write_bytes(gzip.compress(b" " * (80 << 20)))
    tracemalloc.start()
    with pytest.raises(
        DataError, match=r"data.jsonl.gz: found more than 67,108,864 bytes once unpacked; allowed: at most"
    ):
        read_dialogues(opened(f"{tmp_path}/data.jsonl.gz"), template(), context=64)
    assert tracemalloc.get_traced_memory()[1] < 3 * MAX_RECORD_BYTES
    tracemalloc.stop()


def test_a_damaged_file_is_told_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "x"}\n' * 1000)[:-20])
    with pytest.raises(DataError, match=r"data.jsonl.gz:\d+: found .*; allowed: a file that is whole"):
        list(opened(str(path))[0].records(refuse))
    (tmp_path / "data.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"data.parquet:1: found .*; allowed: a file that is whole"):
        list(opened(f"{tmp_path}/data.parquet")[0].records(refuse))


@pytest.mark.parametrize(("uri", "found"), [("missing.jsonl", "nothing at"), ("notes.txt", "'notes.txt'")])
def test_a_source_that_names_no_data_is_refused(tmp_path: Path, uri: str, found: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=rf"spec.data\[0\].uri: found {found}.*; allowed: files that end in .jsonl"):
        opened(f"{tmp_path}/{uri}")


GOOD, LONG = [ask("Why?", "So.")], "x" * 100
DEAD: dict[str, tuple[list[dict[str, Any]], str]] = {
    "unanswered": (
        [*GOOD, {"messages": [{"role": "user", "content": "Why?"}]}],
        "spec.data: found 1 of 2 records that hold no answer of the assistant, so that no token would count "
        "(data.jsonl:2); allowed: at most 5% of such records. To fix it: check the roles",
    ),
    "empty": (
        GOOD + [ask("Why?", " ")] * 4,
        "found 4 of 5 records that have an answer without text (data.jsonl:2, data.jsonl:3, data.jsonl:4, …)",
    ),
    "long": (GOOD + [ask("Why?", LONG)] * 2, "found 2 of 3 records that do not fit into the context"),
    "none": ([ask(LONG, "So.")], "found 1 of 1 records that do not fit"),
}


@pytest.mark.parametrize(("records", "message"), DEAD.values(), ids=DEAD)
def test_dead_dialogues_are_found(
    sources: MakeSources, template: MakeTemplate, records: list[dict[str, Any]], message: str
) -> None:
    _, findings = read_dialogues(sources(records), template(), context=64)
    with pytest.raises(DataError) as caught:
        check_findings(findings)
    assert message in str(caught.value)


DEAD_PAIRS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "equal": (
        [pair("Yes.", "No."), pair("Yes.", "Yes.")],
        "1 of 2 records that have a chosen answer that is the rejected",
    ),
    "no prompt": (
        [{"chosen": "Yes.", "rejected": "No."}],
        "1 of 1 records that hold a pair of answers to an empty prompt (data.jsonl:1); allowed: at most 5% of such "
        "records. To fix it: take these records out, or check which field holds the prompt: prompt, question or",
    ),
    "blank prompt": ([pair("Yes.", "No.", " ")], "1 of 1 records that hold a pair of answers to an empty prompt"),
    "empty": ([pair("Yes.", "")], "1 of 1 records that have an answer without text"),
    "long": ([pair("Yes.", LONG)], "1 of 1 records that do not fit into the context"),
}


@pytest.mark.parametrize(("records", "message"), DEAD_PAIRS.values(), ids=DEAD_PAIRS)
def test_dead_pairs_are_found(
    sources: MakeSources, template: MakeTemplate, records: list[dict[str, Any]], message: str
) -> None:
    _, findings = read_pairs(sources(records), template(), context=64)
    with pytest.raises(DataError) as caught:
        check_findings(findings)
    assert message in str(caught.value)


def test_a_few_dead_records_are_left_out_and_told(sources: MakeSources, template: MakeTemplate) -> None:
    data, findings = read_dialogues(sources(GOOD * 30 + [ask("Why?", "")]), template(), context=64)
    check_findings(findings)
    assert len(data) == findings.kept == 30
    assert findings.sentences() == ["1 of 31 records have an answer without text"]


def test_fields_that_nothing_reads_are_told_once(sources: MakeSources, template: MakeTemplate) -> None:
    records = [ask("Why?", "So.") | {"id": number, "source": "x"} for number in range(3)]
    assert read_dialogues(sources(records), template(), context=64)[1].sentences() == [
        "not read of the records: id, source"
    ]


def test_an_answer_of_weight_0_is_read_and_not_learnt(sources: MakeSources, template: MakeTemplate) -> None:
    made, talk = template(), ask("Why?", "So.", "Or so.")
    talk["messages"][1]["weight"] = 0
    (one,) = read_dialogues(sources([talk]), made, context=64)[0]
    assert made.tokenizer.decode(one.tokens[one.counted].tolist()) == "Or so."
    with pytest.raises(DataError, match="found a message of weight 0, and trainOn: all; allowed: weights with"):
        read_dialogues(sources([talk]), made, context=64, all_tokens=True)
    talk["messages"][3]["weight"] = 0
    with pytest.raises(DataError, match="hold no answer of the assistant"):
        check_findings(read_dialogues(sources([talk]), made, context=64)[1])


def test_a_long_dialogue_ends_with_the_last_answer_that_fits(sources: MakeSources, template: MakeTemplate) -> None:
    made = template()
    data, findings = read_dialogues(sources([ask("Why?", "So.", "Or so.", LONG)]), made, context=40)
    (whole, counted) = data[0]
    assert made.tokenizer.decode(whole[counted].tolist(), skip_special_tokens=False) == "So.<|end|>Or so.<|end|>"
    assert findings.sentences() == ["1 dialogues are cut after the last answer that fits into the context"]


def test_a_sequence_fills_the_context_with_what_it_is_given(sources: MakeSources, template: MakeTemplate) -> None:
    records = [ask("Why?", "So.")]  # <|user|> Why? <|end|> <|assistant|> So. <|end|>: 11 tokens, of which 10 are read
    assert [len(read_dialogues(sources(records), template(), context=size)[0]) for size in (9, 10)] == [0, 1]


def test_pairs_share_their_prompt_and_only_answers_count(sources: MakeSources, template: MakeTemplate) -> None:
    made = template()
    pairs, findings = read_pairs(sources([pair("Yes!", "No.")]), made, context=64)
    said = [made.tokenizer.decode(each.tokens[each.counted].tolist()) for each in (pairs.chosen[0], pairs.rejected[0])]
    assert said == ["Yes!", "No."]
    assert findings.counted == len("Yes!") + len("No.") + 2


def test_every_token_counts_where_asked(sources: MakeSources, template: MakeTemplate) -> None:
    data, findings = read_dialogues(sources(GOOD), template(), context=64, all_tokens=True)
    assert data[0].counted.all() and findings.counted == findings.tokens == 11


def test_prompts_end_where_the_model_begins(sources: MakeSources, template: MakeTemplate) -> None:
    made = template()
    prompts, findings = read_prompts(sources([{"prompt": "2+3", "answer": "5"}, {"prompt": LONG}]), made, longest=20)
    assert [made.tokenizer.decode(each.tokens, skip_special_tokens=False) for each in prompts] == [
        "<|user|>2+3<|end|><|assistant|>"
    ]
    assert prompts[0].prompt.record["answer"] == "5" and prompts[0].place == "data.jsonl:1"
    assert findings.skipped == {"long": ["data.jsonl:2"]}


def test_the_digest_is_that_of_what_is_learned(sources: MakeSources, template: MakeTemplate) -> None:
    def digest(*records: dict[str, Any]) -> str:
        return read_pairs(sources(list(records)), template(), context=64)[0].digest

    one = digest(pair("Yes.", "No."))
    assert one == digest(pair("Yes.", "No.") | {"id": 1})
    assert len({one, digest(pair("No.", "Yes.")), digest(pair("Yes.", "No.", "When?"))}) == 3


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the real data is not here")
@pytest.mark.parametrize(
    ("path", "read", "kept"),
    [("gsm8k/train.jsonl", read_dialogues, 7473), ("hh-rlhf/*.jsonl.gz", read_pairs, 2308)],
    ids=["gsm8k", "hh-rlhf"],
)
def test_real_data_raises_no_false_alarm(template: MakeTemplate, path: str, read: Any, kept: int) -> None:
    began = time.monotonic()
    data, findings = read(opened(f"{SHARED}/{path}"), template(), context=16384)
    check_findings(findings)
    assert len(data) == findings.kept == kept
    assert time.monotonic() - began < 30


@pytest.mark.skipif(not (SHARED.parent / "cases").exists(), reason="the inputs are not here")
def test_a_torn_line_of_a_given_file_is_one_bad_record_and_a_line_without_end_is_refused() -> None:
    given = SHARED.parent / "cases" / "data"
    faults: list[DataError] = []
    (source,) = opened(str(given / "torn.jsonl"))
    assert len(list(source.records(faults.append))) == 400 and len(faults) == 1
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb\.jsonl\.gz"):
        (source,) = opened(str(given / "bomb.jsonl.gz"))
        list(source.records(refuse))
    assert tracemalloc.get_traced_memory()[1] < 200 << 20
    tracemalloc.stop()
