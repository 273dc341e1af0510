"""Whatever a source names is listed the same everywhere, and whatever is wrong in a file costs one record."""

import gzip
import hashlib
import io
import json
import os
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kindling_api.errors import DataError, SpecError, StorageError
from kindling_api.v1alpha1.dataset_build import Source, SourceFormat
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_dataprep.build import build
from kindling_dataprep.output.manifest import inputs_listing
from kindling_dataprep.records import Document, InputFile, Removal, Span
from kindling_dataprep.steps import faults, formats
from kindling_dataprep.steps.content import Content
from kindling_dataprep.steps.read import list_inputs, read
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_storage.commit import read_manifest
from kindling_storage.s3.store import S3Store


def listed(*sources: Source) -> list[InputFile]:
    return list(dict.fromkeys(span.file for span in list_inputs(sources, open_store=open_store)))


def paths(uri: str, file_format: SourceFormat | None = None) -> list[str]:
    return [each.path for each in listed(Source(uri=uri, format=file_format))]


def read_all(source: Source) -> list[Document | Removal]:
    return [record for span in list_inputs([source], open_store=open_store) for record in read(span, source)]


def outcome(record: Document | Removal) -> tuple[str, str]:
    """(id, text) of a document, (id, why) of a removal."""
    if isinstance(record, Document):
        return record.id, record.text
    assert record.rule == "badRecord"
    return record.id, f"bad: {record.measure}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of several kinds, at several depths."""
    for name in (
        "b.txt",
        "a.txt",
        "deep/er/c.md",
        "deep/d.jsonl.gz",
        ".hidden.txt",
        ".git/e.txt",
        "image.png",
        "README",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("uri", "file_format", "expected"),
    [
        ("{}", None, ["a.txt", "b.txt", "deep/d.jsonl.gz", "deep/er/c.md"]),
        ("file://{}", None, ["a.txt", "b.txt", "deep/d.jsonl.gz", "deep/er/c.md"]),
        ("{}/", "text", ["README", "a.txt", "b.txt", "deep/d.jsonl.gz", "deep/er/c.md", "image.png"]),
        ("{}/a.txt", None, ["a.txt"]),
        ("{}/README", "text", ["README"]),
        ("{}/*.txt", None, ["a.txt", "b.txt"]),
        ("{}/[bc].txt", None, ["b.txt"]),
        ("{}/?.txt", None, ["a.txt", "b.txt"]),
        ("{}/**/*.md", None, ["deep/er/c.md"]),
        ("{}/**/*.txt", None, ["a.txt", "b.txt"]),
        ("{}/deep/*/*", None, ["er/c.md"]),
    ],
    ids=[
        *("folder", "file URI", "folder with a format", "file", "file with a format"),
        *("star", "set", "question mark", "two stars", "two stars match no folder too", "folders below a star"),
    ],
)
def test_a_source_names_files(folder: Path, uri: str, file_format: SourceFormat | None, expected: list[str]) -> None:
    assert paths(uri.format(folder), file_format) == expected


def test_a_plain_path_is_relative_to_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "deep")
    assert paths("../*.txt") == ["a.txt", "b.txt"]
    assert paths("er") == ["c.md"]


def test_names_that_are_no_utf8_are_read_and_shown_with_their_bytes(tmp_path: Path, new_run) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(b"A text of some words.")
    (span,) = list_inputs([Source(uri=str(tmp_path / "in"))], open_store=open_store)
    (record,) = read(span, Source(uri="x"))
    assert isinstance(record, Document) and record.id == r"0/caf\xe9.txt#1"
    assert b"caf\\\\xe9.txt" in inputs_listing([span.file])
    asked = {"tokenizer": {"byte": {}}, "filters": [], "validation": {"fraction": 0}}
    assert build(new_run(tmp_path / "in", **asked), Tracker(ProgressWriter(None))).documents.kept == 1


def test_a_source_may_lie_on_another_server_than_the_products(
    tmp_path: Path, new_run, new_bucket: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = new_bucket("moto")
    store = open_store(bucket.uri, endpoint=bucket.endpoint)
    assert isinstance(store, S3Store)
    store.put("raw/a.txt", b"A text that lies elsewhere.")
    store.bucket.client.put_object_acl(Bucket=store.bucket.name, Key="raw/a.txt", ACL="public-read")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    source = {"uri": f"{bucket.uri}/raw", "storage": {"endpoint": bucket.endpoint, "unsigned": True}}
    run = new_run(source, tokenizer={"byte": {}}, filters=[], validation={"fraction": 0})
    assert build(run, Tracker(ProgressWriter(None))).documents.kept == 1


def test_a_source_has_a_key_of_its_own_and_its_product_tells_nothing_of_it(new_run, door, source_secret) -> None:
    open_store(door.uri, endpoint=door.endpoint).put("raw/a.txt", b"A text that lies elsewhere.")
    door.key = "lake"
    source_secret.put("lake", "secret")
    source = {"uri": f"{door.uri}/raw", "storage": {"endpoint": door.endpoint, "credentialsSecret": "lake"}}
    run = new_run(source, tokenizer={"byte": {}}, filters=[], validation={"fraction": 0})
    made = build(run, Tracker(ProgressWriter(None)))
    manifest = read_manifest(open_store(made.uri), DatasetManifest)
    assert made.documents.kept == 1 and manifest is not None
    assert manifest.spec["sources"][0]["storage"].keys() == {"endpoint", "unsigned", "requesterPays"}


def test_keys_of_s3_with_empty_parts_are_found_and_read(new_bucket: Callable) -> None:
    bucket = new_bucket("moto")
    open_bucket = partial(open_store, endpoint=bucket.endpoint)
    for key in ("raw//a.txt", "raw/a.txt", "raw//deep//b.txt", "/c.txt"):
        open_bucket(bucket.uri).put(key, key.encode())
    for uri, expected in {
        "raw": ["raw//a.txt", "raw//deep//b.txt", "raw/a.txt"],
        "raw//a.txt": ["raw//a.txt"],
        "raw/a.txt": ["raw/a.txt"],
        "raw//*.txt": ["raw//a.txt"],
        "raw/**/b.txt": ["raw//deep//b.txt"],
        "/c.txt": ["/c.txt"],
        "": ["/c.txt", "raw//a.txt", "raw//deep//b.txt", "raw/a.txt"],
    }.items():
        source = Source(uri=f"{bucket.uri}/{uri}")
        spans = list_inputs([source], open_store=open_bucket)
        records = [record for span in spans for record in read(span, source, open_store=open_bucket)]
        assert [record.text for record in records if isinstance(record, Document)] == expected, uri


@pytest.mark.slow
def test_files_in_s3_are_found_and_read_as_those_of_a_folder(new_bucket: Callable) -> None:
    bucket = new_bucket("moto")
    open_bucket = partial(open_store, endpoint=bucket.endpoint)
    store = open_bucket(bucket.uri)
    for path, content in {"raw/a.jsonl.gz": gzip.compress(GOOD), "raw/deep/b.txt": b"three", "raw/c.png": b""}.items():
        store.put(path, content)
    for uri, expected in {
        f"{bucket.uri}/raw/*.gz": ["one", "two"],
        f"{bucket.uri}/raw/deep/b.txt": ["three"],
        f"{bucket.uri}/raw": ["one", "two", "three"],
        bucket.uri: ["one", "two", "three"],
    }.items():
        source = Source(uri=uri)
        spans = list_inputs([source], open_store=open_bucket)
        records = [record for span in spans for record in read(span, source, open_store=open_bucket)]
        assert [outcome(record)[1] for record in records] == expected


class BreakingStream(io.BytesIO):
    """Gives some bytes, and then the error of a store that is gone."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= 1000:
            raise StorageError("the store is gone")
        return super().read(min(1000, size if size is not None and size >= 0 else 1000))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz", "a.txt.zst"])
def test_a_store_that_breaks_off_is_not_taken_for_a_bad_record(name: str) -> None:
    noise = b"".join(hashlib.sha256(bytes([i])).hexdigest().encode() + b"\n" for i in range(200))
    packed = gzip.compress(noise) if name.endswith(".gz") else zstandard.compress(noise)
    span = Span.whole(InputFile(0, "file:///x", name, len(packed), "", "jsonl" if "jsonl" in name else "text"))
    with pytest.raises(StorageError, match="the store is gone"):
        if "jsonl" in name:
            list(formats.read_jsonl(Content(BreakingStream(packed), span), span, "text"))
        else:
            list(formats.read_text(Content(BreakingStream(packed), span), span))


def test_names_with_odd_characters_are_found_and_read(tmp_path: Path) -> None:
    for name in ("a b.txt", "50%.txt", "[1].txt", "é#?.txt"):
        (tmp_path / name).write_text(name)
        source = Source(uri=str(tmp_path / name))
        assert [outcome(record) for record in read_all(source)] == [(f"0/{name}#1", name)]


def test_an_input_carries_its_size_and_the_digest_of_its_bytes(folder: Path) -> None:
    (input,) = listed(Source(uri=f"{folder}/deep/d.jsonl.gz"))
    digest = hashlib.sha256(b"deep/d.jsonl.gz").hexdigest()
    etag = open_store(folder.as_uri()).info("deep/d.jsonl.gz").etag
    assert input == InputFile(0, f"file://{folder}/deep", "d.jsonl.gz", 15, f"sha256:{digest}", "jsonl", etag)


def test_sources_are_listed_in_the_order_of_the_spec(folder: Path) -> None:
    inputs = listed(Source(uri=f"{folder}/b.txt"), Source(uri=f"{folder}/*.txt"))
    assert [(each.source, each.path) for each in inputs] == [(0, "b.txt"), (1, "a.txt"), (1, "b.txt")]


def test_the_standard_library_is_a_source_on_every_machine() -> None:
    inputs = listed(Source(uri="builtin:python-stdlib"))
    found = [each.path for each in inputs]
    assert {"abc.py", "json/decoder.py", "importlib/__init__.py"} <= set(found)
    assert not [path for path in found if "site-packages" in path or "/test" in path or not path.endswith(".py")]
    assert found == sorted(found)
    assert {each.uri for each in inputs} == {"builtin:python-stdlib"}
    source = (Path(sysconfig.get_path("stdlib")) / "abc.py").read_text()
    (document,) = read(Span.whole(inputs[found.index("abc.py")]), Source(uri="builtin:python-stdlib"))
    assert document == Document("0/abc.py#1", 0, source)


SUFFIXES = "a suffix that tells the format: .txt, .md, .py, .c and other text and code, .jsonl, .parquet, .warc, .wet"


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            Source(uri="{}/nothing"),
            DataError,
            "spec.sources[0].uri: found nothing at '{}/nothing'; allowed: a file, a folder with files in it, or a glob "
            "that fits some. To fix it: correct the path.",
        ),
        (
            Source(uri="{}/image.png"),
            SpecError,
            f"spec.sources[0].uri: found 'image.png'; allowed: {SUFFIXES}; or a format. "
            "To fix it: set spec.sources[0].format to text, code, jsonl, parquet, csv, html, warc or wet, or leave the "
            "file out.",
        ),
        (
            Source(uri="https://example.org/a.txt"),
            SpecError,
            "spec.sources[0].uri: found 'https://example.org/a.txt'; allowed: s3://, file://, hf://datasets/, a path, "
            "or builtin:python-stdlib. To fix it: fetch the files and name them by a path.",
        ),
        (
            Source(uri="builtin:stdlib"),
            SpecError,
            "spec.sources[0].uri: found 'builtin:stdlib'; allowed: builtin:python-stdlib. "
            "To fix it: write builtin:python-stdlib, or the path of your own files.",
        ),
    ],
    ids=["nothing there", "unknown suffix", "unknown scheme", "unknown builtin"],
)
def test_a_source_that_cannot_be_read_is_refused(
    folder: Path, source: Source, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as raised:
        listed(source.model_copy(update={"uri": source.uri.format(folder)}))
    assert str(raised.value) == message.replace("{}", str(folder))


def test_a_folder_without_readable_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"png")
    with pytest.raises(DataError) as raised:
        listed(Source(uri=str(tmp_path)))
    assert str(raised.value) == (
        f"spec.sources[0].uri: found no file in '{tmp_path}' with a known suffix (1 with another, as image.png); "
        f"allowed: {SUFFIXES}. To fix it: set spec.sources[0].format if the files are text, or name others."
    )


def json_lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


GOOD = json_lines({"text": "one"}, {"text": "two"})
BOM = b"\xef\xbb\xbf"

# name, content, what is read of it
FILES: dict[str, tuple[str, bytes, list[tuple[str, str]]]] = {
    "text": ("a.txt", b"one\ntwo\n", [("1", "one\ntwo\n")]),
    "code": ("a.py", b"if x:\n\tpass\r\n", [("1", "if x:\n\tpass\r\n")]),
    "empty file": ("a.txt", b"", [("1", "")]),
    "invalid UTF-8": ("a.txt", b"caf\xe9 au lait", [("1", "café au lait")]),
    "binary": ("a.txt", b"\x7fELF\x02\x01\x01\0\0\0", [("1", "bad: binary")]),
    "gzip": ("a.txt.gz", gzip.compress(b"one"), [("1", "one")]),
    "gzip of several members": ("a.txt.gz", gzip.compress(b"one ") + gzip.compress(b"two"), [("1", "one two")]),
    "truncated gzip": ("a.txt.gz", gzip.compress(b"one\n")[:-4], [("1", "one\n"), ("2", "bad: readable")]),
    "no gzip at all": ("a.txt.gz", b"plain text", [("1", "bad: readable")]),
    "zstandard": ("a.md.zst", zstandard.compress(b"one"), [("1", "one")]),
    "truncated zstandard": ("a.md.zst", zstandard.compress(b"one two three")[:-4], [("1", "bad: readable")]),
    "JSON lines": ("a.jsonl", GOOD, [("1", "one"), ("2", "two")]),
    "no line end at the end": ("a.jsonl", GOOD[:-1], [("1", "one"), ("2", "two")]),
    "BOM and CRLF": ("a.jsonl", BOM + GOOD.replace(b"\n", b"\r\n"), [("1", "one"), ("2", "two")]),
    "blank lines": ("a.jsonl", b"\n" + GOOD + b"  \n", [("2", "one"), ("3", "two")]),
    "a bad line": ("a.jsonl", b'{"text": "on\n' + GOOD, [("1", "bad: json"), ("2", "one"), ("3", "two")]),
    "a missing field": ("a.jsonl", json_lines({"body": "x"}) + GOOD[:16], [("1", "bad: textField"), ("2", "one")]),
    "null": ("a.jsonl", json_lines({"text": None}), [("1", "bad: textField")]),
    "a number": ("a.jsonl", json_lines({"text": 7}), [("1", "bad: textField")]),
    "no object": ("a.jsonl", json_lines(["text"], "text"), [("1", "bad: textField"), ("2", "bad: textField")]),
    "deep nesting": ("a.jsonl", b"[" * 100_000 + b"\n" + GOOD[:16], [("1", "bad: json"), ("2", "one")]),
    "a number too long": (
        "a.jsonl",
        b'{"text": ' + b"9" * 5000 + b"}\n" + GOOD[:16],
        [("1", "bad: json"), ("2", "one")],
    ),
    "half a surrogate pair": ("a.jsonl", rb'{"text": "a\ud800b \ud83d\ude00"}', [("1", "a�b 😀")]),
    "invalid UTF-8 in a line": ("a.jsonl", b'{"text": "caf\xe9"}', [("1", "caf�")]),
    "binary lines": ("a.jsonl", b"\0\x01\xff\n" + GOOD, [("1", "bad: encoding"), ("2", "one"), ("3", "two")]),
    "truncated gzipped lines": (
        "a.jsonl.gz",
        gzip.compress(GOOD)[:-8],
        [("1", "one"), ("2", "two"), ("3", "bad: readable")],
    ),
    "gzipped lines": ("a.jsonl.gz", gzip.compress(GOOD), [("1", "one"), ("2", "two")]),
    "no Parquet at all": ("a.parquet", b"PAR1 and then something else", [("1", "bad: readable")]),
    "empty Parquet file": ("a.parquet", b"", [("1", "bad: readable")]),
}


@pytest.mark.parametrize(("name", "content", "expected"), FILES.values(), ids=FILES)
def test_a_file_is_read_and_what_is_wrong_with_it_is_told(
    tmp_path: Path, name: str, content: bytes, expected: list[tuple[str, str]]
) -> None:
    (tmp_path / name).write_bytes(content)
    records = read_all(Source(uri=str(tmp_path / name)))
    assert [outcome(record) for record in records] == [(f"0/{name}#{number}", text) for number, text in expected]


def test_of_truncated_lines_those_before_the_damage_are_read_and_the_rest_is_one_bad_record(tmp_path: Path) -> None:
    lines = json_lines(
        *({"text": f"text {hashlib.sha256(bytes([i % 256, i // 256])).hexdigest()}"} for i in range(20_000))
    )
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines)[:-400_000])
    *documents, last = read_all(Source(uri=str(tmp_path / "a.jsonl.gz")))
    assert len(documents) > 5_000
    assert all(isinstance(document, Document) for document in documents)
    assert outcome(last) == (f"0/a.jsonl.gz#{len(documents) + 1}", "bad: readable")
    assert isinstance(last, Removal)
    size = (tmp_path / "a.jsonl.gz").stat().st_size
    assert last.excerpt == f"the file ends before this gzip member does ({size:,} bytes from byte 0 on)"
    assert (last.offset, last.unread) == (0, size), "what is missing cannot be known: the member counts whole"


def test_a_removal_shows_the_record_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text":\t7, "more": "' + b"x" * 1000 + b'"}\n')
    (removal,) = read_all(Source(uri=str(tmp_path / "a.jsonl")))
    assert removal == Removal(
        id="0/a.jsonl#1",
        rule="badRecord",
        measure="textField",
        value=None,
        threshold=None,
        note="no string in 'text'; its fields: more, text",
        excerpt='{"text": 7, "more": "' + "x" * 179,
    )


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.txt", bytes), ("a.txt.gz", gzip.compress), ("a.txt.zst", zstandard.compress)],
    ids=["plain", "gzip bomb", "zstandard bomb"],
)
def test_a_file_larger_than_a_record_may_be_is_a_bad_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(faults, "MAX_RECORD_BYTES", 100_000)
    (tmp_path / name).write_bytes(pack(b"x" * 100_001))
    (removal,) = read_all(Source(uri=str(tmp_path / name)))
    assert outcome(removal) == (f"0/{name}#1", "bad: bytes")
    (tmp_path / name).write_bytes(pack(b"x" * 100_000))
    assert outcome(read_all(Source(uri=str(tmp_path / name)))[0]) == (f"0/{name}#1", "x" * 100_000)


@pytest.mark.parametrize("length", [99, 100, 101, 200, 201, 1000])
def test_a_line_larger_than_a_record_may_be_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setattr(faults, "MAX_RECORD_BYTES", 100)
    (tmp_path / "a.jsonl").write_bytes(b"x" * length + b"\n" + GOOD)
    records = [outcome(record) for record in read_all(Source(uri=str(tmp_path / "a.jsonl")))]
    why = "bytes" if length > 100 else "json"
    assert records == [("0/a.jsonl#1", f"bad: {why}"), ("0/a.jsonl#2", "one"), ("0/a.jsonl#3", "two")]


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=["string", "large string", "string view", "dictionary"],
)
def test_parquet_gives_a_document_a_row(tmp_path: Path, kind: pa.DataType) -> None:
    texts = [f"text {i}" for i in range(300)]
    pq.write_table(pa.table({"id": range(300), "body": pa.array(texts, kind)}), tmp_path / "a.parquet")
    records = read_all(Source(uri=str(tmp_path), text_field="body"))
    assert [outcome(record) for record in records] == [(f"0/a.parquet#{i + 1}", text) for i, text in enumerate(texts)]


def test_nulls_invalid_text_and_huge_values_in_parquet_cost_their_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "MAX_RECORD_BYTES", 100)
    values = [b"one", None, b"caf\xe9", b"x" * 101, b"two"]
    column = pa.array(values, pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    records = [outcome(record)[1] for record in read_all(Source(uri=str(tmp_path)))]
    assert records == ["one", "bad: textField", "caf�", "bad: bytes", "two"]


def test_a_damaged_parquet_file_gives_what_is_whole_and_one_bad_record(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(2000)]
    pq.write_table(pa.table({"text": texts}), path, row_group_size=1000, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    middle = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    *documents, last = read_all(Source(uri=str(tmp_path)))
    assert [document.text for document in documents if isinstance(document, Document)] == texts[: len(documents)]
    assert outcome(last)[1] == "bad: readable"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "body",
            "spec.sources[0].textField: found 'body', which a.parquet does not have; allowed: a column of strings out "
            "of: text (string), year (int64). To fix it: name one of these columns.",
        ),
        (
            "year",
            "spec.sources[0].textField: found 'year' of type int64 in a.parquet; allowed: a column of strings out of: "
            "text (string), year (int64). To fix it: name a column of strings.",
        ),
    ],
    ids=["no such column", "no text"],
)
def test_a_parquet_column_that_cannot_be_read_is_refused(tmp_path: Path, column: str, message: str) -> None:
    pq.write_table(pa.table({"text": ["a"], "year": [1999]}), tmp_path / "a.parquet")
    with pytest.raises(DataError) as raised:
        read_all(Source(uri=str(tmp_path), text_field=column))
    assert str(raised.value) == message


def test_packed_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(SpecError, match=r"found 'a.parquet.gz'; allowed: uncompressed .parquet files"):
        listed(Source(uri=str(tmp_path)))
