"""Text is decoded as what it is, whatever a label says, or is told to be none; it is never full of U+FFFD."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kindling_api.v1alpha1.dataset_build import Source
from kindling_dataprep.records import Document, Removal
from kindling_dataprep.steps import formats
from kindling_dataprep.steps.encodings import decoded
from kindling_dataprep.steps.read import list_inputs, read
from kindling_storage import open_store

SPANISH = "Había una vez un hombre que vivía solo en una casa muy pequeña. ¿Qué haría mañana? Él no lo sabía.\n" * 3
FRENCH = "Où êtes-vous allés, à l'été dernier ? Nous étions près de la forêt, où les élèves préféraient être.\n" * 3
ENGLISH = "It’s a “good” day — isn’t it? The café’s owner said so, and the naïve guests agreed … all of them.\n" * 3
POLISH = "Wczoraj po południu rada miasta zebrała się, aby omówić oczyszczanie rzeki. Żółć, gęś, jaźń. Wszyscy.\n" * 3
RUSSIAN = (
    "Вчера днём городской совет собрался, чтобы обсудить очистку реки. Все согласились, что её надо очистить.\n" * 3
)
CHINESE = "昨天下午，市议会召开会议，讨论河流治理的问题。与会者认为，冬天到来之前必须把河道清理干净。\n" * 3
JAPANESE = (
    "昨日の午後、市議会が開かれ、川の清掃について話し合いました。冬が来る前に川をきれいにしなければなりません。\n" * 3
)
KOREAN = "어제 오후 시의회가 열려 강을 정화하는 문제를 논의했다. 모두 겨울이 오기 전에 강을 깨끗이 해야 한다.\n" * 3

TEXTS = [
    *((SPANISH, "latin-1"), (FRENCH, "latin-1"), (ENGLISH, "cp1252"), (POLISH, "cp1250"), (POLISH, "iso8859-2")),
    *((RUSSIAN, "koi8-r"), (RUSSIAN, "cp1251"), (CHINESE, "gbk"), (JAPANESE, "shift_jis"), (JAPANESE, "euc_jp")),
    *((KOREAN, "euc_kr"), (CHINESE, "utf-16"), (SPANISH, "utf-16-le"), (ENGLISH, "utf-16-be"), (POLISH, "utf-8")),
]


def read_bytes(folder: Path, name: str, data: bytes) -> list[str]:
    """Texts, and the faults of what is none."""
    (folder / name).write_bytes(data)
    source = Source(uri=str(folder / name))
    records = [record for span in list_inputs([source], open_store=open_store) for record in read(span, source)]
    return [
        each.text if isinstance(each, Document) else each.measure
        for each in records
        if isinstance(each, Document | Removal)
    ]


@pytest.mark.parametrize(("text", "encoding"), TEXTS, ids=[f"{encoding} {text[:8]}" for text, encoding in TEXTS])
def test_a_text_file_is_decoded_as_what_it_is(tmp_path: Path, text: str, encoding: str) -> None:
    assert read_bytes(tmp_path, "a.txt", text.encode(encoding)) == [text]


@pytest.mark.parametrize(("text", "encoding"), TEXTS, ids=[f"{encoding} {text[:8]}" for text, encoding in TEXTS])
def test_of_lines_and_rows_what_is_not_utf8_is_a_bad_record(tmp_path: Path, text: str, encoding: str) -> None:
    line = json.dumps({"text": text}, ensure_ascii=False).encode(encoding)
    found = read_bytes(tmp_path, "a.jsonl", line)
    assert found == [text] if encoding == "utf-8" else set(found) == {"encoding"}
    if not encoding.startswith("utf-16"):
        strings = pa.array([text.encode(encoding)]).cast(pa.string(), safe=False)
        pq.write_table(pa.table({"text": strings}), tmp_path / "a.parquet")
        assert read_bytes(tmp_path, "a.parquet", (tmp_path / "a.parquet").read_bytes()) == found


def test_a_large_text_in_utf16_is_bad_and_none_of_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "TEXT_BYTES", 200)
    assert set(read_bytes(tmp_path, "a.txt", SPANISH.encode("utf-16"))) <= {"encoding", "binary"}


GOOD = f"<p>{POLISH}</p>".encode()
LABELS = (
    *("none", "utf8mb4", "iso-8859-1,utf-8", "utf-8;charset=utf-8", "unicode", "x-sjis", "windows-31j", "ansi", "hex"),
    *("x-user-defined", "base64", "undefined", "rot13", "zip", "punycode", "idna", "mbcs", "\0", "utf-16", "utf-7", ""),
    *("latin1", "'windows-1252'", '"ISO-8859-1"', "x-mac-cyrillic", "iso-2022-kr", "hz-gb-2312", "replacement", "é"),
)


@pytest.mark.parametrize("label", LABELS)
def test_no_label_of_a_page_is_an_error(label: str) -> None:
    bodies = [SPANISH.encode("latin-1"), b"\xff", bytes(range(256)), GOOD, b"", b"\xed\xa0\x80" * 9]
    texts = [decoded(body, declared=label, is_html=True) for body in bodies]
    assert [text.encode().decode() for text in texts] == texts, "no half of a pair of surrogates"
    assert texts[3] == GOOD.decode()


@pytest.mark.parametrize("label", ["none", "utf8mb4", "iso-8859-1,utf-8", "ansi", "hex", "utf-16", "unicode", None])
def test_a_page_whose_label_says_nothing_is_decoded_as_it_looks(label: str | None) -> None:
    assert decoded(SPANISH.encode("latin-1"), declared=label) == SPANISH
    assert decoded(KOREAN.encode("euc_kr"), declared=label) == KOREAN
    assert decoded(RUSSIAN.encode("cp1251"), declared=label) == RUSSIAN


@pytest.mark.parametrize("label", ["utf-8", "iso-8859-1", None])
@pytest.mark.parametrize("text", [POLISH, CHINESE, RUSSIAN, ENGLISH * 3])
def test_one_bad_byte_in_utf8_stays_one_bad_byte(text: str, label: str | None) -> None:
    middle = len(text) // 2
    body = text[:middle].encode() + b"\xff" + text[middle:].encode()
    assert decoded(body, declared=label) == f"{text[:middle]}\ufffd{text[middle:]}"


def test_a_page_is_decoded_as_declared() -> None:
    for text, encoding in [(RUSSIAN, "koi8-r"), (POLISH, "iso-8859-2"), (JAPANESE, "shift_jis"), (CHINESE, "gb2312")]:
        assert decoded(text.encode(encoding), declared=encoding.upper()) == text
    assert decoded("“café”".encode("cp1252"), declared="iso-8859-1") == "“café”", "as browsers read that label"
