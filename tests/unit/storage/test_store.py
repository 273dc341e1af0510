"""What every store does, whether in a folder or in S3."""

from __future__ import annotations

import hashlib
import io
import pickle
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kindling_api.errors import NotFoundError, StorageError
from kindling_storage import ObjectStore
from kindling_storage.store import checked_path

# moto looks and writes in two steps, so that two requests at once can both win: no proof of anything.
RACE_PROOF = pytest.mark.parametrize(
    "store", ["file", pytest.param("minio", marks=[pytest.mark.slow, pytest.mark.timeout(1800)])], indirect=True
)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def paths_of(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.path for info in store.list(prefix)]


def test_what_is_put_can_be_read(store: ObjectStore) -> None:
    for data in (b"", b"some text", bytes(range(256)) * 5000):
        info = store.put("a/b.bin", data)
        assert (info.path, info.size, info.digest) == ("a/b.bin", len(data), digest_of(data))
        assert store.get("a/b.bin") == data


def test_bytes_a_file_and_a_stream_can_be_put(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    infos = [store.put("bytes", b"content"), store.put("file", tmp_path / "file")]
    infos.append(store.put("stream", io.BytesIO(b"content")))
    assert {(info.size, info.digest) for info in infos} == {(7, digest_of(b"content"))}
    assert store.get("bytes") == store.get("file") == store.get("stream") == b"content"


def test_a_put_replaces_what_was_there(store: ObjectStore) -> None:
    before = store.put("a", b"old and longer")
    after = store.put("a", b"new")
    assert store.get("a") == b"new"
    assert before.etag != after.etag


@pytest.mark.parametrize("size", [5 << 20, (10 << 20) + 12345], ids=["one part", "two parts and a bit"])
def test_an_object_in_parts_arrives_whole(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("kindling_storage.s3.upload.PART_BYTES", 5 << 20)  # the least that S3 takes
    data = random.Random(1).randbytes(size)
    assert store.put("large", io.BytesIO(data)).digest == digest_of(data)
    assert store.download("large", tmp_path / "new folder" / "large").digest == digest_of(data)
    assert (tmp_path / "new folder" / "large").read_bytes() == data


def test_put_if_absent_keeps_what_was_there(store: ObjectStore) -> None:
    assert store.put_if_absent("a/b", b"first")
    assert not store.put_if_absent("a/b", b"second")
    assert store.get("a/b") == b"first"


@RACE_PROOF
def test_of_many_threads_one_wins_put_if_absent(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: store.put_if_absent("prize", str(number).encode()), range(24)))
    assert won.count(True) == 1
    assert store.get("prize") == str(won.index(True)).encode()


RACE = """
import pickle, sys
store = pickle.loads(bytes.fromhex(sys.argv[1]))
store.exists("warm")
print("ready", flush=True)
sys.stdin.readline()
print([number for number in range(20) if store.put_if_absent(f"prize-{number}", sys.argv[2].encode())])
"""


@pytest.mark.slow
@RACE_PROOF
def test_of_two_processes_one_wins_put_if_absent(store: ObjectStore) -> None:
    pickled = pickle.dumps(store).hex()
    command = [sys.executable, "-c", RACE, pickled]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    racers = [subprocess.Popen([*command, name], **pipes) for name in ("one", "two")]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = [eval(racer.communicate(timeout=60)[0]) for racer in racers]
    assert sorted(won[0] + won[1]) == list(range(20))
    for number in range(20):
        assert store.get(f"prize-{number}") == (b"one" if number in won[0] else b"two")


def test_listing_is_sorted_by_path_as_s3_sorts(store: ObjectStore) -> None:
    for path in ("b", "a/b", "a-b", "a/é", "a.b", "a/B"):
        store.put(path, b"12345")
    assert paths_of(store) == ["a-b", "a.b", "a/B", "a/b", "a/é", "b"]
    assert {info.size for info in store.list()} == {5}


def test_a_prefix_selects_what_is_listed(store: ObjectStore) -> None:
    for path in ("steps/1/a", "steps/10/a", "train-0", "train-1"):
        store.put(path, b"")
    for prefix, found in {
        "": ["steps/1/a", "steps/10/a", "train-0", "train-1"],
        "steps/": ["steps/1/a", "steps/10/a"],
        "steps/1": ["steps/1/a", "steps/10/a"],
        "steps/1/": ["steps/1/a"],
        "train-": ["train-0", "train-1"],
        "nothing/": [],
        "train-0/": [],
    }.items():
        assert paths_of(store, prefix) == found, prefix


def test_a_store_without_objects_lists_nothing(store: ObjectStore) -> None:
    assert paths_of(store) == []


def test_what_put_and_list_say_of_an_object_agrees(store: ObjectStore) -> None:
    info = store.put("a", b"content")
    (listed,) = store.list()
    assert (listed.path, listed.size, listed.etag) == (info.path, info.size, info.etag)
    assert store.info("a") == listed


def test_a_child_is_a_part_of_its_store(store: ObjectStore) -> None:
    child = store.child("models/abc")
    child.put("x", b"1")
    assert paths_of(store) == ["models/abc/x"]
    assert paths_of(child) == ["x"]
    assert child.uri == store.uri + "/models/abc"
    assert store.child("models").child("abc/").get("x") == b"1"


def test_deleting_a_folder_spares_its_neighbours(store: ObjectStore) -> None:
    for path in ("step-1/a", "step-1/b/c", "step-10/a", "step-1.json"):
        store.put(path, b"")
    store.delete_prefix("step-1")
    assert paths_of(store) == ["step-1.json", "step-10/a"]
    store.delete_prefix("")
    assert paths_of(store) == []


def test_deleting_what_is_not_there_is_fine(store: ObjectStore) -> None:
    store.delete("nothing")
    store.delete_prefix("nothing/at/all")
    store.put("a", b"")
    store.delete("a")
    assert not store.exists("a")


def test_only_objects_exist(store: ObjectStore) -> None:
    store.put("folder/a", b"")
    assert store.exists("folder/a")
    assert not store.exists("folder")
    assert not store.exists("folder/b")


def test_a_range_is_read(store: ObjectStore) -> None:
    store.put("digits", b"0123456789")
    ranges = {(0, 3): b"012", (4, 3): b"456", (8, 5): b"89", (10, 1): b"", (50, 2): b"", (3, 0): b""}
    assert {(start, length): store.get_range("digits", start, length) for start, length in ranges} == ranges


def test_a_stream_can_be_read_from_anywhere(store: ObjectStore) -> None:
    data = random.Random(2).randbytes(3 << 20)
    store.put("a", data)
    with store.open("a") as stream:
        assert stream.read(10) == data[:10]
        assert stream.seek(-7, io.SEEK_END) == len(data) - 7
        assert stream.read() == data[-7:]
        stream.seek(2_000_000)
        assert stream.read(5) == data[2_000_000:2_000_005]
        assert stream.tell() == 2_000_005


def test_reading_what_is_not_there_says_so(store: ObjectStore, tmp_path: Path) -> None:
    store.put("folder/a", b"")
    for path in ("nothing", "folder", "folder/a/b"):
        for read in (
            lambda path: store.get(path),
            lambda path: store.open(path),
            lambda path: store.info(path),
            lambda path: store.get_range(path, 0, 1),
            lambda path: store.download(path, tmp_path / "x"),
        ):
            with pytest.raises(NotFoundError) as raised:
                read(path)
            assert str(raised.value) == (
                f"{store.uri}/{path}: found nothing; allowed: an object that was put. "
                "To fix it: check the path, or run what makes it."
            )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../secret", "a/../../b", "a//b", "./a", "a/", "a\0b"])
def test_a_path_cannot_lead_out_of_its_store(path: str) -> None:
    with pytest.raises(StorageError) as raised:
        checked_path(path)
    assert str(raised.value) == (
        f"object path: found {path!r}; allowed: a relative path without empty, '.' or '..' parts. "
        "To fix it: correct the path."
    )


def test_every_method_checks_its_path(store: ObjectStore, tmp_path: Path) -> None:
    uses = [
        store.get,
        store.open,
        store.exists,
        store.info,
        store.delete,
        store.delete_prefix,
        store.child,
        lambda path: store.put(path, b""),
        lambda path: store.put_if_absent(path, b""),
        lambda path: store.get_range(path, 0, 1),
        lambda path: store.download(path, tmp_path / "x"),
    ]
    for use in uses:
        with pytest.raises(StorageError, match="object path"):
            use("../outside")


def test_odd_names_are_kept(store: ObjectStore) -> None:
    names = sorted(["with space", "per%20cent", "plus+and&", "ünï/çödé", "a#b?c", "'quoted\"", "~tilde", "a<b>&amp;"])
    for name in names:
        store.put(name, name.encode())
    assert sorted(paths_of(store)) == names
    assert [store.get(name).decode() for name in names] == names
    store.delete_prefix("")
    assert paths_of(store) == []


def test_a_store_can_be_sent_to_another_process(store: ObjectStore) -> None:
    store.child("a").put("b", b"content")
    assert pickle.loads(pickle.dumps(store.child("a"))).get("b") == b"content"
