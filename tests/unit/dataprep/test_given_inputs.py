"""Inputs that others met, where they are at hand: each gives what it should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kindling_api.errors import DataError
from kindling_api.v1alpha1.dataset_build import Source, TokenizerFrom
from kindling_dataprep.build import build
from kindling_dataprep.records import Document, Remark, Removal
from kindling_dataprep.steps.pii import redact
from kindling_dataprep.steps.read import list_inputs, read
from kindling_dataprep.tokenize import tokenizer
from kindling_dataprep.tokenize.pretrained import fetch
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store

GIVEN = Path(__file__).parents[4] / "shared" / "cases" / "data"

pytestmark = pytest.mark.skipif(not GIVEN.is_dir(), reason="the inputs are not here")


def records_of(name: str) -> list[Document | Removal | Remark]:
    source = Source(uri=str(GIVEN / name))
    return [each for span in list_inputs([source], open_store=open_store) for each in read(span, source)]


@pytest.mark.parametrize(
    ("name", "documents", "faults", "unread", "remarks"),
    [
        ("c15_unknown_charset.warc.gz", 21, [], 0, 0),
        ("c15_one_bad_byte.warc.gz", 12, [], 0, 0),
        ("c14_html_http_oddities.warc.gz", 28, ["http"] * 3, 0, 0),
        ("d_long.warc.gz", 9, ["readable"], 903, 0),
        ("trunc10.jsonl.gz", 292, ["readable"], 32_852, 0),
        ("zeros.jsonl.gz", 10, [], 0, 1024),
        ("es.txt", 1, [], 0, 0),
    ],
)
def test_what_is_read_and_what_is_told(name: str, documents: int, faults: list[str], unread: int, remarks: int) -> None:
    records = records_of(name)
    bad = [each for each in records if isinstance(each, Removal) and each.rule == "badRecord"]
    assert sum(isinstance(each, Document) for each in records) == documents
    assert [each.measure for each in bad] == faults
    assert sum(each.unread or 0 for each in bad) == unread
    assert sum(each.size for each in records if isinstance(each, Remark)) == remarks


def test_letters_are_right_whatever_a_page_says_of_them() -> None:
    texts = [each.text for name in ("c15_one_bad_byte.warc.gz", "es.txt") for each in records_of(name)]  # type: ignore[union-attr]
    assert all(text.count("�") <= 1 for text in texts)
    assert not any(wrong in text for text in texts for wrong in ("Ã", "Å‚", "ä½", "Ð¸"))
    assert "Había una vez" in texts[-1] and "mañana" in texts[-1]
    assert records_of("c15_unknown_charset.warc.gz")[-1].text.endswith("café")  # type: ignore[union-attr]


def test_a_file_that_ends_after_a_tenth_is_refused_and_taken_where_that_is_allowed(tmp_path: Path, new_run) -> None:
    asked = {"tokenizer": {"byte": {}}, "filters": [{"formatting": {}}]}
    with pytest.raises(DataError, match=r"badRecords\.maxFraction.*trunc10\.jsonl\.gz.*32,852 bytes"):
        build(new_run(GIVEN / "trunc10.jsonl.gz", **asked), Tracker(ProgressWriter(None)))
    run = new_run(GIVEN / "trunc10.jsonl.gz", **asked, badRecords={"maxFraction": 1})
    result = build(run, Tracker(ProgressWriter(None)))
    assert result.documents.kept == 292  # all that came out before the place where the file ends
    assert result.damage is not None and result.damage.unread == 32_852


def test_a_document_ends_with_the_token_that_the_files_beside_a_tokenizer_name() -> None:
    found = fetch(TokenizerFrom(uri=str(GIVEN / "deepseek")), open_store)
    loaded = tokenizer.load(found.file, "other", found.end_of_document)
    assert loaded.tokenizer.id_to_token(found.end_of_document) == "<｜end▁of▁sentence｜>"


def test_what_is_personal_goes_and_what_looks_alike_stays() -> None:
    texts = [json.loads(line)["text"] for line in (GIVEN / "pii.jsonl").open()]
    redacted = [redact(text, ("email", "ip", "phone", "card"))[0] for text in texts]
    stay = [text for text, after in zip(texts, redacted, strict=True) if text == after]
    for word in ("git@", "logo@2x", "react@", "1.84.1.0", "Chrome/", "clause", "+2019-01-01", "@w.sum", "+1234567"):
        assert any(word in text for text in stay), word
    joined = "\n".join(redacted)
    for word in ("jürgen", "müller", "zhang.san", "jane.doe", "8.8.4.4 on", "(495)", "030 901820", "1234-5678"):
        assert word not in joined
