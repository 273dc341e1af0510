"""Damage costs the bytes that it touches, each once, and is told by file, offset and bytes wherever people look."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from rich.console import Console

from kindling_api.errors import DataError
from kindling_api.v1alpha1.dataset_build import Source
from kindling_api.v1alpha1.products import REPORT, DatasetManifest
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import MOST_REMARKS
from kindling_cli.rows import StageRow
from kindling_cli.screen import PlainScreen, picture
from kindling_dataprep.__main__ import main
from kindling_dataprep.output import ledger
from kindling_dataprep.records import Document, Remark, Removal
from kindling_dataprep.steps import scan
from kindling_dataprep.steps.read import list_inputs, read
from kindling_storage import open_store
from kindling_storage.commit import read_manifest

Records = list[Document | Removal | Remark]

TEXTS = [f"Text {n}: {hashlib.sha256(str(n).encode()).hexdigest() * (1 + n % 40)}" for n in range(400)]
LINES = [json.dumps({"text": text}).encode() + b"\n" for text in TEXTS]
CASES = Path(__file__).parents[5] / "shared/cases/data"


def page(text: str, *, length: int = 0) -> bytes:
    """A record of a WARC file; `length` is added to the true one."""
    block = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{text}".encode()
    return b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n" % (len(block) + length, block)


def parquet(**options: object) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS}), written, row_group_size=50, write_page_checksum=True, **options)
    return written.getvalue()


def frame(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def read_file(path: Path) -> Records:
    source = Source(uri=str(path))
    return [record for span in list_inputs([source], open_store=open_store) for record in read(span, source)]


def read_bytes(folder: Path, name: str, data: bytes) -> Records:
    (folder / name).write_bytes(data)
    return read_file(folder / name)


def texts_of(records: Records) -> list[str]:
    return [record.text for record in records if isinstance(record, Document)]


def places_of(records: Records) -> list[tuple[int, int]]:
    """Offset and bytes of what could not be read."""
    return [
        (each.offset or 0, each.unread) for each in records if isinstance(each, Removal) and each.unread is not None
    ]


A, B, C = (gzip.compress(line) for line in LINES[:3])
ZA, ZB, ZC = (bz2.compress(line) for line in LINES[:3])
XA, XB, XC = (lzma.compress(line) for line in LINES[:3])
FA, FB, FC = (frame(line) for line in LINES[:3])
WRONG_SUM = B[:-8] + bytes(4) + B[-4:]
LONG = gzip.compress(b"".join(LINES), 1)
PA, PB, PC = (page(text) for text in TEXTS[:3])
GA, GB, GC = (gzip.compress(record) for record in (PA, PB, PC))
TOO_LONG, TOO_SHORT = page(TEXTS[1], length=150), page(TEXTS[1], length=-20)

# name, content, numbers of the texts that are read, (offset, bytes) of what is not, bytes passed over
FILES: dict[str, tuple[str, bytes, list[int], list[tuple[int, int]], list[int]]] = {
    "whole members": ("a.jsonl.gz", A + B + C, [0, 1, 2], [], []),
    "an empty file": ("a.jsonl.gz", b"", [], [], []),
    "zeros behind": ("a.jsonl.gz", A + bytes(1024), [0], [], [1024]),
    "zeros between": ("a.jsonl.gz", A + bytes(100_000) + B, [0, 1], [], [100_000]),
    "garbage behind": ("a.jsonl.gz", A + b"garbage" * 9, [0], [], [63]),
    "garbage between": ("a.jsonl.gz", A + b"garbage" * 9 + B, [0, 1], [(len(A), 63)], []),
    "a last member whose first byte is wrong": ("a.jsonl.gz", A + b"x" + B[1:], [0], [(len(A), len(B))], []),
    "a member cut short": ("a.jsonl.gz", A + B[: len(B) // 2], [0], [(len(A), len(B) // 2)], []),
    "the last line in a member cut short": ("a.jsonl.gz", LONG[: len(LONG) // 2], [], [(0, len(LONG) // 2)], []),
    "a wrong checksum": ("a.jsonl.gz", A + WRONG_SUM + C, [0, 2], [(len(A), len(B))], []),
    "no gzip at all": ("a.jsonl.gz", LINES[0], [], [(0, len(LINES[0]))], []),
    "frames": ("a.jsonl.zst", FA + FB + FC, [0, 1, 2], [], []),
    "zeros behind a frame": ("a.jsonl.zst", FA + bytes(50), [0], [], [50]),
    "a frame cut short": ("a.jsonl.zst", FA + FB[:-1], [0], [(len(FA), len(FB) - 1)], []),
    "a frame with a wrong checksum": ("a.jsonl.zst", FA + FB[:-1] + b"x" + FC, [0, 2], [(len(FA), len(FB))], []),
    "bzip2": ("a.jsonl.bz2", ZA + ZB + ZC, [0, 1, 2], [], []),
    "a bzip2 stream cut short": ("a.jsonl.bz2", ZA + ZB[: len(ZB) // 2], [0], [(len(ZA), len(ZB) // 2)], []),
    "a damaged bzip2 stream": ("a.jsonl.bz2", ZA + ZB[:30] + bytes(9) + ZB[39:] + ZC, [0, 2], [(len(ZA), len(ZB))], []),
    "xz": ("a.jsonl.xz", XA + XB + bytes(8) + XC, [0, 1, 2], [], [8]),
    "an xz stream cut short": ("a.jsonl.xz", XA + XB[:-40], [0], [(len(XA), len(XB) - 40)], []),
    "a damaged xz stream": ("a.jsonl.xz", XA + XB[:30] + bytes(9) + XB[39:] + XC, [0, 2], [(len(XA), len(XB))], []),
    "packed .json": ("a.json.gz", A + B + C, [0, 1, 2], [], []),
    "records": ("a.warc.gz", GA + GB + GC, [0, 1, 2], [], []),
    "a damaged record": ("a.warc.gz", GA + GB[:20] + bytes(20) + GB[40:] + GC, [0, 2], [(len(GA), len(GB))], []),
    "a record too long": ("a.warc.gz", GA + gzip.compress(TOO_LONG) + GC, [0, 2], [(len(GA), 0)], []),
    "a plain record too long": ("a.warc", PA + TOO_LONG + PC, [0, 2], [(len(PA), len(TOO_LONG))], []),
    "a plain record too short": ("a.warc", PA + TOO_SHORT + PC, [0, 2], [(len(PA), len(TOO_SHORT))], []),
    "a record far too long": ("a.warc", PA + page("", length=10**12) + PC, [0, 2], [(len(PA), 0)], []),
    "a first line that is wrong": ("a.warc", PA + b"XARC" + PB[4:] + PC, [0, 2], [(len(PA), len(PB))], []),
    "a record cut short": ("a.warc", PA + PB[:-10], [0], [(len(PA), len(PB) - 10)], []),
    "lines of zeros": ("a.jsonl", LINES[0] + bytes(5000) + b"\n" + LINES[1], [0, 1], [(len(LINES[0]), 5001)], []),
    "a binary text": ("a.txt", b"\0" * 300, [], [(0, 300)], []),
}


@pytest.mark.parametrize(("name", "data", "kept", "lost", "ignored"), FILES.values(), ids=FILES)
def test_damage_costs_what_it_touches_and_reading_goes_on_behind_it(
    tmp_path: Path, name: str, data: bytes, kept: list[int], lost: list[tuple[int, int]], ignored: list[int]
) -> None:
    records = read_bytes(tmp_path, name, data)
    found = texts_of(records)
    assert (found if kept else found[:0]) == [TEXTS[number] for number in kept]
    assert [offset for offset, _ in places_of(records)] == [offset for offset, _ in lost]
    for (_, unread), (_, expected) in zip(places_of(records), lost, strict=True):
        assert unread == expected if expected else 0 < unread < len(data)
    assert [each.size for each in records if isinstance(each, Remark)] == ignored


def test_what_was_unpacked_before_a_file_ends_is_kept(tmp_path: Path) -> None:
    found = texts_of(read_bytes(tmp_path, "a.jsonl.gz", LONG[: len(LONG) // 2]))
    assert 150 < len(found) < 250
    assert found == TEXTS[: len(found)]


def test_of_parquet_a_page_costs_the_rest_of_its_row_group_and_a_footer_the_file(tmp_path: Path) -> None:
    whole = parquet()
    group = pq.ParquetFile(io.BytesIO(whole)).metadata.row_group(3).column(0)
    middle = group.dictionary_page_offset + group.total_compressed_size - 40
    records = read_bytes(tmp_path, "a.parquet", whole[:middle] + bytes(20) + whole[middle + 20 :])
    ((offset, unread),) = places_of(records)
    assert group.dictionary_page_offset <= offset
    assert offset + unread == group.dictionary_page_offset + group.total_compressed_size
    assert texts_of(records) == TEXTS[: 150 + len(texts_of(records)) - 350] + TEXTS[200:]
    cut = whole[:-100]
    records = read_bytes(tmp_path, "b.parquet", cut)
    assert (texts_of(records), places_of(records)) == ([], [(0, len(cut))])


@pytest.mark.parametrize("span_bytes", [100, 5000, 1 << 20])
def test_each_span_of_a_file_counts_its_own_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, span_bytes: int
) -> None:
    monkeypatch.setattr(scan, "SPAN_BYTES", span_bytes)
    data = b"".join([*LINES[:50], bytes(9000) + b"\n", *LINES[50:], b"{torn"])
    assert places_of(read_bytes(tmp_path, "a.jsonl", data)) == [
        (sum(map(len, LINES[:50])), 9001),
        (len(data) - 5, 5),
    ]


LONG_WINDOW = zstandard.ZstdCompressionParameters.from_level(3, window_log=28, enable_ldm=False)


def test_a_long_window_is_refused_by_the_name_of_the_setting_that_allows_it(tmp_path: Path, new_run) -> None:
    stream = zstandard.ZstdCompressor(compression_params=LONG_WINDOW).compressobj()
    (tmp_path / "a.jsonl.zst").write_bytes(stream.compress(b"".join(LINES)) + stream.flush())
    with pytest.raises(
        DataError, match=r"spec\.engine\.zstdWindow: found a window of 268,435,456 bytes.*a\.jsonl\.zst"
    ):
        read_file(tmp_path / "a.jsonl.zst")
    source = Source(uri=str(tmp_path / "a.jsonl.zst"))
    (span,) = list_inputs([source], open_store=open_store)
    assert texts_of(list(read(span, source, window=1 << 28))) == TEXTS
    fields = {"tokenizer": {"byte": {}}, "filters": [], "deduplicate": {"exact": False}}
    assert build(tmp_path, new_run(tmp_path / "a.jsonl.zst", **fields)).failure is not None
    allowed = build(tmp_path, new_run(tmp_path / "a.jsonl.zst", **fields, engine={"zstdWindow": "256Mi"}))
    assert allowed.result is not None
    assert allowed.result.documents.kept == len(TEXTS)


DAMAGES: dict[str, Callable[[random.Random, bytes, int, int], bytes]] = {
    "cut short": lambda _chance, data, begin, _end: data[:begin],
    "zeros": lambda _chance, data, begin, end: data[:begin] + bytes(end - begin) + data[end:],
    "noise": lambda chance, data, begin, end: data[:begin] + chance.randbytes(end - begin) + data[end:],
    "left out": lambda _chance, data, begin, end: data[:begin] + data[end:],
    "a bit": lambda chance, data, begin, _end: (
        data[:begin] + bytes([data[begin] ^ (1 << chance.randrange(8))]) + data[begin + 1 :]
    ),
}
WHOLE = {
    "one.jsonl.gz": gzip.compress(b"".join(LINES)),
    "many.jsonl.gz": b"".join(map(gzip.compress, LINES)),
    "one.jsonl.zst": frame(b"".join(LINES)),
    "many.jsonl.zst": b"".join(map(frame, LINES)),
    "many.warc.gz": b"".join(gzip.compress(page(text)) for text in TEXTS),
    "one.warc.gz": gzip.compress(b"".join(map(page, TEXTS))),
    "many.jsonl.bz2": b"".join(map(bz2.compress, LINES)),
    "one.json.xz": lzma.compress(b"".join(LINES)),
    "a.parquet": parquet(),
    "b.parquet": parquet(compression="none", use_dictionary=False),
    "a.jsonl": b"".join(LINES),
}
WITHOUT_CHECKSUM = {"a.jsonl": ["cut short", "zeros"]}
"""Other damage leaves lines that are whole, with other letters in them, which nobody can know."""


def damaged(number: int) -> tuple[str, bytes]:
    """A name, and the bytes of the file after some damage."""
    chance = random.Random(number)
    name = list(WHOLE)[number % len(WHOLE)]
    kind = chance.choice(WITHOUT_CHECKSUM.get(name, list(DAMAGES)))
    whole = WHOLE[name]
    begin = chance.randrange(len(whole) - 1)
    begin += whole[begin:].startswith(whole[:3])  # a file that ends with a whole member shows no sign of another
    end = min(begin + chance.choice([2, 50, 2000, 20_000]), len(whole))
    return f"{number:03d}-{name}", DAMAGES[kind](chance, whole, begin, end)


RANDOM = 100


@pytest.fixture(scope="module")
def damaged_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    for number in range(RANDOM):
        name, data = damaged(number)
        (folder / name).write_bytes(data)
    return folder


def test_no_random_damage_ends_in_silence_and_no_byte_counts_twice(damaged_files: Path) -> None:
    for path in sorted(damaged_files.iterdir()):
        records, size = read_file(path), path.stat().st_size
        places = sorted(places_of(records))
        missing = Counter(TEXTS) - Counter(texts_of(records))
        told = places or [each for each in records if isinstance(each, Removal | Remark)]
        assert told or not missing, f"{path.name}: {sum(missing.values())} texts are missing"
        stops = [offset + unread for offset, unread in places]
        assert all(stop <= offset for stop, (offset, _) in zip(stops, places[1:], strict=False)), path.name
        assert all(offset >= 0 and unread >= 0 for offset, unread in places), path.name
        assert not stops or stops[-1] <= size, path.name
        assert sum(missing.values()) < len(TEXTS) or sum(unread for _, unread in places) > size // 3, path.name


def build(folder: Path, run) -> Progress:
    """The last word of a build in this process."""
    (folder / "run.json").write_text(json.dumps(run.document()))
    main([str(folder / "run.json"), "--progress", str(folder / "word.json")])
    return Progress.model_validate_json((folder / "word.json").read_bytes())


def test_ledger_status_terminal_and_report_tell_the_same_bytes(
    tmp_path: Path, damaged_files: Path, new_run, capfd: pytest.CaptureFixture[str]
) -> None:
    fields = {"tokenizer": {"byte": {}}, "filters": [], "deduplicate": {"exact": False}}
    run = new_run(damaged_files, **fields, badRecords={"maxFraction": 1})
    word = build(tmp_path, run)
    assert word.result is not None
    damage, store = word.result.damage, open_store(word.result.uri)
    assert damage is not None
    rows = [row for row in ledger.read_removed(store).to_pylist() if row["unread"] is not None]
    assert damage.bytes == sum(path.stat().st_size for path in damaged_files.iterdir())
    assert (damage.unread, damage.places) == (sum(row["unread"] for row in rows), len(rows))
    assert damage.places > 50
    assert len(damage.remarks) == MOST_REMARKS
    largest = max(rows, key=lambda row: row["unread"])
    name = largest["id"].partition("/")[2].partition("#")[0]
    assert damage.remarks[0].startswith(f"{name}: ")
    assert damage.remarks[0].endswith(f"({largest['unread']:,} bytes from byte {largest['offset']:,} on)")
    told = f"{damage.unread:,} of {damage.bytes:,} bytes"
    assert told in word.message
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    assert manifest.damage == damage
    report = store.get(REPORT).decode()
    assert f"<b>{damage.unread:,}</b> of {damage.bytes:,} bytes" in report
    assert name in report
    row = StageRow("DatasetBuild/test", "done", word)
    console = Console(file=io.StringIO(), width=200)
    PlainScreen(console).show([row])
    console.print(picture([row], 200))
    shown = console.file.getvalue()
    assert shown.count(told) == 2
    assert shown.count(damage.remarks[0]) == 2
    assert damage.remarks[0] in capfd.readouterr().err


def test_a_file_that_ends_early_counts_by_its_bytes_and_not_as_one_record(tmp_path: Path, new_run) -> None:
    whole = b"".join(json.dumps({"text": f"{text} again"}).encode() + b"\n" for text in TEXTS)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(LONG[: len(LONG) // 10])
    (tmp_path / "in" / "b.jsonl.gz").write_bytes(gzip.compress(whole))
    size, other = len(LONG) // 10, len(gzip.compress(whole))
    fields = {"tokenizer": {"byte": {}}, "filters": [], "deduplicate": {"exact": False}}
    word = build(tmp_path, new_run(tmp_path / "in", **fields))
    assert word.failure is not None
    found = f"found {size:,} of {size + other:,} bytes could not be read (a.jsonl.gz: the file ends before"
    assert word.failure.message.startswith(f"spec.badRecords.maxFraction: {found}")
    assert f"({size:,} bytes from byte 0 on)" in word.failure.message
    allowed = build(tmp_path, new_run(tmp_path / "in", **fields, badRecords={"maxFraction": 0.5}))
    assert allowed.result is not None
    assert allowed.result.documents.kept > len(TEXTS) + 20


def test_what_was_passed_over_is_remarked_and_costs_nothing(tmp_path: Path, new_run) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"".join(LINES[:10])) + b"garbage")
    fields = {"tokenizer": {"byte": {}}, "filters": [], "badRecords": {"maxFraction": 0}}
    result = build(tmp_path, new_run(tmp_path / "a.jsonl.gz", **fields)).result
    assert result is not None
    assert result.damage is not None
    assert (result.documents.kept, result.damage.unread, result.damage.places) == (10, 0, 0)
    (remark,) = result.damage.remarks
    assert "trailing garbage after a gzip member, ignored (7 bytes from byte" in remark


@pytest.mark.skipif(not CASES.exists(), reason="no cases beside this repository")
@pytest.mark.parametrize(
    ("name", "documents", "places", "remarks"),
    [("trunc10.jsonl.gz", 282, 1, 0), ("zeros.jsonl.gz", 10, 0, 1), ("d_long.warc.gz", 9, 1, 0),
     ("c15_unknown_charset.warc.gz", 21, 0, 0)],
)  # fmt: skip
def test_files_of_public_reports(name: str, documents: int, places: int, remarks: int) -> None:
    records = read_file(CASES / name)
    assert len(texts_of(records)) >= documents
    assert len(places_of(records)) == places
    assert sum(isinstance(each, Remark) for each in records) == remarks
