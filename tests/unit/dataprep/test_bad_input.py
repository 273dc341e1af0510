"""Whatever is wrong with the input costs the records it touches: each is counted, and what is published is whole."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from moto.server import ThreadedMotoServer

from kindling_api.errors import DataError, UnreachableError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_dataprep.build import build
from kindling_dataprep.output import ledger
from kindling_dataprep.output.work import WORK
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_storage.commit import read_manifest, verify

GOOD = 1200
LINES = b"".join(
    json.dumps({"text": f"Document number {n}, times {n}: {n * n}."}).encode() + b"\n" for n in range(GOOD)
)
PAGE = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + b"<div>" * 2000
WARC = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n" % (len(PAGE), PAGE)

# name, content, the fault of each bad record by its number
BAD: dict[str, tuple[bytes, dict[int, str]]] = {
    "binary.txt": (b"\x7fELF\0\0\0", {1: "binary"}),
    "bomb.jsonl.gz": (gzip.compress((b" " * 99_999 + b"\n") * 750, 9), {0: "unpacked"}),
    "bomb.txt.zst": (zstandard.compress(bytes(72 << 20)), {1: "unpacked"}),
    "empty.parquet": (b"", {1: "readable"}),
    "fields.jsonl": (b'{"body": "no text"}\n{"text": 7}\n', {1: "textField", 2: "textField"}),
    "nested.warc": (WARC, {1: "nesting"}),
    "torn.jsonl": (b'{"text": "to', {1: "json"}),
    "truncated.jsonl.gz": (gzip.compress(LINES)[:-4000], {0: "readable"}),
    "truncated.warc": (WARC[:-100], {1: "readable"}),
    "truncated.warc.gz": (gzip.compress(WARC)[:-20], {1: "readable"}),
}


@pytest.fixture
def bad_input(tmp_path: Path) -> Path:
    """Good lines, invalid UTF-8, a Parquet file without rows, and everything that is BAD."""
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "good.jsonl").write_bytes(LINES)
    (folder / "latin.txt").write_bytes("Déjà vu".encode("latin-1"))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "none.parquet")
    for name, (content, _) in BAD.items():
        (folder / name).write_bytes(content)
    return folder


def run(file: DatasetBuildFile) -> DatasetManifest:
    """Builds, and returns the manifest."""
    result = build(file, Tracker(ProgressWriter(None)))
    manifest = read_manifest(open_store(result.uri), DatasetManifest)
    assert manifest is not None
    return manifest


def test_everything_bad_is_counted_and_the_rest_is_built(bad_input: Path, new_run) -> None:
    fields = {"tokenizer": {"byte": {}}, "filters": [], "deduplicate": {"exact": False}}
    file = new_run(bad_input, **fields, badRecords={"maxFraction": 0.6})
    manifest = run(file)
    (folder,) = Path(open_store(file.output).local_path("datasets")).iterdir()
    store = open_store(folder.as_uri())
    assert list(verify(store, manifest)) == []
    removed = ledger.read_removed(store).to_pylist()
    expected = [(f"0/{name}", fault) for name, (_, faults) in sorted(BAD.items()) for fault in faults.values()]
    assert [(row["id"].partition("#")[0], row["measure"]) for row in removed] == expected
    assert {row["rule"] for row in removed} == {"badRecord"}
    numbers = {row["id"] for row in removed}
    assert {f"0/{name}#{n}" for name, (_, faults) in BAD.items() for n in faults if n} <= numbers
    counts, kept = manifest.documents, ledger.read_kept(store)["id"].to_pylist()
    assert counts.removed == {"badRecord": len(removed)}
    assert counts.read == counts.kept + len(removed) == len({*kept, *numbers})
    assert sum(id.startswith("0/good.jsonl#") for id in kept) == GOOD
    assert "0/latin.txt#1" in kept


def test_more_bad_records_than_allowed_publish_nothing(bad_input: Path, new_run) -> None:
    file = new_run(bad_input, badRecords={"maxFraction": 0.001})
    with pytest.raises(DataError, match=r"spec\.badRecords\.maxFraction: found 11 unreadable records out of"):
        run(file)
    written = [info.path for info in open_store(file.output).list()]
    assert not [path for path in written if path.startswith("names/") or path.endswith("manifest.json")]


def test_what_is_no_page_is_counted_and_hides_nothing_that_is_bad(tmp_path: Path, new_run) -> None:
    request = WARC.replace(b"response", b"request")
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nA page."
    pages = b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n" % (len(page), page) * 9
    (tmp_path / "a.warc").write_bytes(request * 90 + WARC + pages)
    fields = {"tokenizer": {"byte": {}}, "filters": [], "deduplicate": {"exact": False}}
    with pytest.raises(DataError, match="found 1 unreadable records out of 10 "):
        run(new_run(tmp_path / "a.warc", **fields, badRecords={"maxFraction": 0.05}))
    counts = run(new_run(tmp_path / "a.warc", **fields, badRecords={"maxFraction": 0.1})).documents
    assert (counts.read, counts.kept, counts.removed) == (100, 9, {"badRecord": 1, "noPage": 90})


@pytest.mark.slow
def test_a_gigabyte_in_one_line_takes_no_more_memory_than_a_record_may(tmp_path: Path, new_run) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "good.jsonl").write_bytes(LINES)
    for name, size in {"one-line.jsonl": 1 << 30, "one-line.txt": 1 << 28}.items():
        with open(folder / name, "wb") as file:
            file.truncate(size)
    (folder / "bomb.txt.gz").write_bytes(gzip.compress(bytes(1 << 28), 1))
    run_file = new_run(folder, tokenizer={"byte": {}}, filters=[], badRecords={"maxFraction": 1})  # nearly every byte
    (tmp_path / "run.json").write_text(json.dumps(run_file.document()))
    command = [sys.executable, "-m", "kindling_dataprep", str(tmp_path / "run.json")]
    command += ["--progress", str(tmp_path / "progress.json")]
    with subprocess.Popen(command) as process:
        peak = 0
        while process.poll() is None:  # not ru_maxrss, in which is what this process had when it started the other
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))])
            time.sleep(0.05)
    assert process.returncode == 0
    word = Progress.model_validate_json((tmp_path / "progress.json").read_bytes())
    assert word.result is not None
    assert word.result.documents.removed["badRecord"] == 3
    assert 0 < peak < 600 << 10, "kibibytes"


@pytest.fixture
def restartable(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], ThreadedMotoServer]]:
    """Starts an S3 server, each time at the same address and with what it held before."""
    for name, value in {"ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test", "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("kindling_storage.s3.retry.SECONDS", 0.5)
    monkeypatch.setattr("kindling_storage.s3.stream.FAILURES", 2)
    servers: list[ThreadedMotoServer] = []

    def start() -> ThreadedMotoServer:
        port = servers[0].get_host_and_port()[1] if servers else 0
        servers.append(ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False))
        servers[-1].start()
        return servers[-1]

    yield start
    servers[-1].stop()


@pytest.mark.slow
def test_a_bucket_that_goes_away_ends_the_build_which_goes_on_once_it_is_back(
    corpus: Path, new_run, restartable: Callable[[], ThreadedMotoServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kindling_dataprep.stages import clean

    monkeypatch.setattr("kindling_dataprep.executors.tasks.SMALLEST_TASK", 10_000)
    server = restartable()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")
    client.create_bucket(Bucket="kindling-away")
    bucket = open_store("s3://kindling-away", endpoint=endpoint)
    for path in sorted(corpus.iterdir()):
        bucket.put(f"raw/{path.name}", path)

    def to(folder: str) -> DatasetBuildFile:
        file = new_run({"uri": "s3://kindling-away/raw"}, store=f"s3://kindling-away/{folder}")
        return file.model_copy(update={"output": file.output.model_copy(update={"endpoint": endpoint})})

    file = to("products")
    expected = build(to("undisturbed"), Tracker(ProgressWriter(None))).digest
    judged = []

    def clean_batch(*arguments):
        judged.append(arguments)
        if len(judged) == 5:
            server.stop()
        return real(*arguments)

    real = clean.clean_batch
    with monkeypatch.context() as patch:
        patch.setattr(clean, "clean_batch", clean_batch)
        with pytest.raises(UnreachableError, match="kindling-away"):
            build(file, Tracker(ProgressWriter(None)))
    assert len(judged) >= 5
    restartable()
    names = [info.path for info in bucket.list("products/")]
    assert not [name for name in names if name.endswith("manifest.json") or "/names/" in name]
    assert [name for name in names if f"/{WORK}/" in name], "what was done is kept"
    again = file.model_copy(update={"attempt": 2})  # takes the place of the first, whose lease nobody gave back
    assert build(again, Tracker(ProgressWriter(None))).digest == expected
