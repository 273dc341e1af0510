"""Whatever a file is made of and whatever happened to it, each of its bytes is read, or told as one that was not."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kindling_api.errors import DataError
from kindling_api.v1alpha1.dataset_build import Source
from kindling_dataprep.records import Document, InputFile, Remark, Removal, Span
from kindling_dataprep.steps import scan
from kindling_dataprep.steps.read import read
from kindling_storage import open_store

PACKING: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def warc(kind: str, text: str) -> bytes:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n" if kind == "response" else b""
    block = page + text.encode()
    return b"WARC/1.0\r\nWARC-Type: %s\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n" % (kind.encode(), len(block), block)


FORMATS: dict[str, Callable[[str], bytes]] = {
    "jsonl": lambda text: json.dumps({"text": text}).encode() + b"\n",
    "csv": lambda text: f'"{text}",7\n'.encode(),
    "tsv": lambda text: f'"{text}"\t7\n'.encode(),
    "txt": lambda text: f"{text}\n".encode(),
    "html": lambda text: f"<p>{text}</p>\n".encode(),
    "warc": lambda text: warc("response", text),
    "wet": lambda text: warc("conversion", text),
}
ONE_RECORD = {"txt", "html"}
"""A file is one, and goes with what it holds."""
HEADERS = {"html": b"<html><body><article><h1>A page</h1>\n", "csv": b"text,number\n", "tsv": b"text\tnumber\n"}
RECORDS = 6


@dataclass(frozen=True)
class Piece:
    """A stretch of a file: one record, in a member of its own where the file is packed."""

    text: str
    stored: bytes
    damaged: bool = False


def pieces_of(kind: str, packing: str, count: int = RECORDS) -> list[Piece]:
    """The records of a file that is whole; the first has the header before it."""
    texts = [f"Record number {number} of this file, which says {number * 7} plainly." for number in range(count)]
    contents = [FORMATS[kind](text) for text in texts]
    contents[0] = HEADERS.get(kind, b"") + contents[0]
    return [Piece(text, PACKING[packing](content)) for text, content in zip(texts, contents, strict=True)]


def changed(pieces: Sequence[Piece], place: int, change: Callable[[bytes], bytes]) -> list[Piece]:
    place %= len(pieces)
    piece = replace(pieces[place], stored=change(pieces[place].stored), damaged=True)
    return [*pieces[:place], piece, *pieces[place + 1 :]]


def over(data: bytes, first: int, filling: bytes) -> bytes:
    return data[:first] + filling + data[first + len(filling) :]


DAMAGES: dict[str, Callable[[list[Piece]], list[Piece]]] = {
    "whole": list,
    "ends early": lambda pieces: changed(pieces, -1, lambda data: data[: len(data) // 2]),
    "ends after a few bytes": lambda pieces: changed(pieces, -1, lambda data: data[:3]),
    "torn inside": lambda pieces: changed(pieces, 3, lambda data: over(data, len(data) // 2, b"\xff" * 9)),
    "torn at a beginning": lambda pieces: changed(pieces, 3, lambda data: over(data, 0, bytes(9))),
    "bytes missing": lambda pieces: changed(pieces, 2, lambda data: data[:9] + data[15:]),
    "bytes too many": lambda pieces: changed(pieces, 2, lambda data: data[:20] + b"\x80\x81" + data[20:]),
    "zeros behind": lambda pieces: [*pieces, Piece("", bytes(512), damaged=True)],
    "garbage behind": lambda pieces: [*pieces, Piece("", b"What is this?\n", damaged=True)],
    "blank lines behind": lambda pieces: [*pieces, Piece("", b"\n\n\n", damaged=True)],
}


def file_at(path: Path, content: bytes) -> InputFile:
    path.write_bytes(content)
    formats: dict[str, Any] = {"txt": "text", "tsv": "csv"}
    kind = path.name.split(".")[1]
    return InputFile(0, path.parent.as_uri(), path.name, len(content), "", formats.get(kind, kind))


def read_all(file: InputFile, spans: Sequence[Span] = ()) -> list[Document | Removal | Remark]:
    spans = spans or [Span.whole(file)]
    return [each for span in spans for each in read(span, Source(uri="x"))]


def stretches_of(records: Sequence[Document | Removal | Remark], size: int) -> list[tuple[int, int]]:
    """What was not read, and what was passed over: in order, apart, and within the file."""
    found = [(each.offset, each.offset + each.size) for each in records if isinstance(each, Remark)]
    for each in records:
        if isinstance(each, Removal) and each.unread is not None and each.offset is not None:
            found.append((each.offset, each.offset + each.unread))
    found = sorted(each for each in found if each[0] < each[1])
    ends = [0, *(stop for _, stop in found)]
    assert all(before <= start for before, (start, _) in zip(ends, found, strict=False)), f"{found} overlap"
    assert ends[-1] <= size
    return found


def told(stretches: Sequence[tuple[int, int]], begin: int, end: int) -> int:
    """How many of the bytes from `begin` to `end` lie in the stretches."""
    return sum(max(min(end, stop) - max(begin, start), 0) for start, stop in stretches)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_read_and_what_is_told_add_up_to_the_file(tmp_path: Path, kind: str, packing: str, damage: str) -> None:
    pieces = DAMAGES[damage](pieces_of(kind, packing))
    file = file_at(tmp_path / f"a.{kind}{packing}", b"".join(piece.stored for piece in pieces))
    records = read_all(file)
    stretches = stretches_of(records, file.size)
    texts = "\n".join(each.text for each in records if isinstance(each, Document))
    whole_removals = [each for each in records if isinstance(each, Removal) and each.unread is None]
    begin = was_read = 0
    for piece in pieces:
        end = begin + len(piece.stored)
        unread = told(stretches, begin, end)
        if not piece.damaged:
            is_read = unread == 0 and piece.text in texts
            assert is_read or (kind in ONE_RECORD and unread == end - begin), f"{piece.text!r} is whole: {records}"
        elif unread < end - begin:
            altered = kind in ONE_RECORD or piece.text in texts or not piece.text or piece.text[:13] in texts
            assert altered or (packing and whole_removals), f"{piece} is not told: {records}"
        was_read += end - begin - unread
        begin = end
    assert was_read + sum(stop - start for start, stop in stretches) == file.size
    if damage == "whole":
        assert not stretches and len(records) == (1 if kind in ONE_RECORD else RECORDS)


ENCODED = {
    "latin-1": "El niño comió una piña en la montaña; después soñó con el año pasado. ¿Qué pasó? ¡Nada! " * 4,
    "cp1252": "“Déjà vu”, dit-elle – c’était l’été où l’œuvre coûtait 5 € à peine, près du château. " * 4,
    "koi8-r": "Широкая электрификация южных губерний даст мощный толчок подъёму сельского хозяйства. " * 4,
    "cp1251": "Съешь же ещё этих мягких французских булок, да выпей чаю, сказал он другу вечером. " * 4,
    "gbk": "今天天气很好，我们一起去公园散步，看到了许多美丽的花朵和快乐的孩子们。" * 6,
    "shift-jis": "今日は天気がいいので、公園へ散歩に行きました。たくさんの花が咲いていました。" * 6,
    "utf-16": "Příliš žluťoučký kůň úpěl ďábelské ódy, a nikdo mu nerozuměl ani slovo. " * 4,
    "utf-8-sig": "Zażółć gęślą jaźń, powiedział wróbel do sowy przy starym młynie. " * 4,
}


@pytest.mark.parametrize("packing", PACKING)
@pytest.mark.parametrize("encoding", ENCODED)
def test_a_text_is_decoded_as_what_it_is_however_it_is_packed(tmp_path: Path, encoding: str, packing: str) -> None:
    file = file_at(tmp_path / f"a.txt{packing}", PACKING[packing](ENCODED[encoding].encode(encoding)))
    (record,) = read_all(file)
    assert isinstance(record, Document) and record.text.removeprefix("\ufeff") == ENCODED[encoding]


def test_a_frame_that_needs_a_dictionary_is_told_as_one_that_cannot_be_read(tmp_path: Path) -> None:
    """What was packed with one, and a damaged header."""
    dictionary = zstandard.ZstdCompressionDict(b"The council met on Tuesday. " * 400, zstandard.DICT_TYPE_RAWCONTENT)
    trained = zstandard.train_dictionary(2048, [f"Record number {n} of this file".encode() * 9 for n in range(200)])
    first, *_, last = pieces_of("jsonl", ".zst")
    for used in (dictionary, trained):
        frame = zstandard.ZstdCompressor(dict_data=used).compress(FORMATS["jsonl"]("The council met on Tuesday."))
        file = file_at(tmp_path / "a.jsonl.zst", first.stored + frame + last.stored)
        records = read_all(file)
        assert [each.text for each in records if isinstance(each, Document)] == [first.text, last.text]
        ((start, stop),) = stretches_of(records, file.size)
        assert len(first.stored) <= start < stop == file.size - len(last.stored)


NAMES = st.tuples(st.sampled_from(sorted(FORMATS)), st.sampled_from(sorted(PACKING)))
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["over", "cut out", "put in", "end", "copy"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=12) | st.integers(1, 300).map(bytes) | st.just(b'"') | st.just(b"\n"),
    ),
    max_size=4,
)


def spoiled(content: bytes, changes: Sequence[tuple[str, float, bytes]]) -> bytes:
    for what, where, data in changes:
        place = int(where * len(content))
        match what:
            case "over":
                content = over(content, place, data)[: len(content)]
            case "cut out":
                content = content[:place] + content[place + len(data) :]
            case "put in":
                content = content[:place] + data + content[place:]
            case "copy":
                content = content[:place] + content[place // 2 :]
            case "end":
                content = content[:place]
    return content


def check_any(folder: Path, name: tuple[str, str], count: int, changes: Sequence[tuple[str, float, bytes]]) -> None:
    """Reads a file that was spoiled: no error, nothing told twice, whole records there, the same in spans."""
    kind, packing = name
    pieces = pieces_of(kind, packing, count)
    content = spoiled(b"".join(piece.stored for piece in pieces), changes)
    file = file_at(folder / f"a.{kind}{packing}", content)
    try:
        records = read_all(file)
    except DataError as error:
        assert "textField" in str(error) or "zstdWindow" in str(error)
        return
    stretches = stretches_of(records, len(content))
    numbers = [int(each.id.rpartition("#")[2]) for each in records if not isinstance(each, Remark)]
    assert numbers == sorted(set(numbers))
    texts = "\n".join(each.text for each in records if isinstance(each, Document))
    lost = [each for each in records if isinstance(each, Removal)]
    for piece in pieces:
        if piece.text not in texts and (begin := content.find(piece.stored)) >= 0:
            assert lost, f"{piece.text!r} is in the file at {begin}, and neither read nor told"
            assert packing or told(stretches, begin, begin + len(piece.stored)) or kind in ONE_RECORD
    if kind == "jsonl" and not packing:
        assert len(numbers) == sum(bool(line.strip()) for line in content.split(b"\n"))
    if kind in ("jsonl", "txt"):
        spans = scan.scan(open_store(file.uri), file, "text")
        assert read_all(file, [replace(span, file=file) for span in spans]) == records


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples."""
    return tmp_path_factory.mktemp("any")


@pytest.fixture
def short_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans of a record or two."""
    monkeypatch.setattr(scan, "SPAN_BYTES", 100)


@pytest.mark.usefixtures("short_spans")
@settings(max_examples=300, suppress_health_check=[])
@given(NAMES, st.integers(1, 6), CHANGES)
def test_no_change_of_a_file_is_lost(folder: Path, name: Any, count: int, changes: Any) -> None:
    check_any(folder, name, count, changes)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("short_spans")
@settings(max_examples=120_000)
@given(NAMES, st.integers(1, 40), CHANGES)
def test_no_change_of_a_file_is_lost_in_half_an_hour(folder: Path, name: Any, count: int, changes: Any) -> None:
    check_any(folder, name, count, changes)


@functools.cache
def parquet_file(compression: str) -> bytes:
    """Twelve texts in row groups of two."""
    written = io.BytesIO()
    table = pa.table({"text": [f"Record number {number} of this file." for number in range(12)], "n": list(range(12))})
    pq.write_table(table, written, row_group_size=2, compression=compression, write_page_checksum=True)
    return written.getvalue()


def check_parquet(folder: Path, compression: str, changes: Sequence[tuple[str, float, bytes]]) -> None:
    """No error but one that says what to do; what is read and what is told cover all that there was."""
    whole = parquet_file(compression)
    content = spoiled(whole, changes)
    file = file_at(folder / "a.parquet", content)
    try:
        records = read_all(file)
    except DataError as error:
        assert "textField" in str(error)
        return
    stretches = stretches_of(records, len(content))
    read_texts = [each.text for each in records if isinstance(each, Document)]
    assert len(read_texts) == 12 or stretches or any(isinstance(each, Removal) for each in records)
    if content == whole:
        assert len(read_texts) == 12 and not stretches


COMPRESSIONS = st.sampled_from(["none", "snappy", "gzip", "zstd"])


@settings(max_examples=200)
@given(COMPRESSIONS, CHANGES)
def test_no_change_of_a_parquet_file_is_lost(folder: Path, compression: str, changes: Any) -> None:
    check_parquet(folder, compression, changes)


@pytest.mark.exhaustive
@pytest.mark.timeout(3600)
@settings(max_examples=40_000)
@given(COMPRESSIONS, CHANGES)
def test_no_change_of_a_parquet_file_is_lost_however_often_it_is_tried(
    folder: Path, compression: str, changes: Any
) -> None:
    check_parquet(folder, compression, changes)
