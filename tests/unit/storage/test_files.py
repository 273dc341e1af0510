"""What can go wrong with a folder."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kindling_api.errors import SpecError, StorageError
from kindling_storage import ObjectStore, open_store
from kindling_storage.atomic import TEMPORARY_PREFIX

ENDLESS_PUT = """
import sys
from kindling_storage import open_store
class Endless:
    begun = False
    def seekable(self): return False
    def read(self, size):
        if not self.begun: print("writing", flush=True)
        self.begun = True
        return bytes(1000)
open_store(sys.argv[1]).put("a", Endless())
"""


def everything_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def aged(path: Path) -> None:
    """Let a file look as if it had been written an hour ago."""
    os.utime(path, (path.stat().st_mtime - 3600,) * 2)


def test_a_killed_put_leaves_nothing_visible_and_its_rest_is_swept(folder_store: ObjectStore, tmp_path: Path) -> None:
    folder_store.put("a", b"old")
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS_PUT, folder_store.uri], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "writing\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert folder_store.get("a") == b"old"
    assert [info.path for info in folder_store.list()] == ["a"]
    (rest,) = (path for path in (tmp_path / "store").iterdir() if path.name.startswith(TEMPORARY_PREFIX))
    aged(rest)
    open_store(folder_store.uri).put("b", b"new")
    assert everything_in(tmp_path / "store") == ["a", "b"]


def test_what_a_living_process_is_writing_is_not_swept(folder_store: ObjectStore, tmp_path: Path) -> None:
    folder_store.put("a", b"")
    being_written = tmp_path / "store" / f"{TEMPORARY_PREFIX}0"
    with being_written.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        aged(being_written)
        orphan = tmp_path / "store" / f"{TEMPORARY_PREFIX}1"
        orphan.touch()
        aged(orphan)
        open_store(folder_store.uri).put("b", b"")
        assert everything_in(tmp_path / "store") == [being_written.name, "a", "b"]


def test_a_full_disk_is_reported_and_what_was_there_stays(small_disk: Path) -> None:
    store = open_store(f"file://{small_disk}")
    store.put("finished", b"content")
    with pytest.raises(StorageError) as raised:
        store.put("too-large", bytes(2 << 20))
    free = shutil.disk_usage(small_disk).free
    assert str(raised.value) == (
        f"{small_disk}: found no space left on device while writing too-large ({free} bytes free); "
        "allowed: room for 2097152 bytes. To fix it: free some space, or a quota, or use a folder on another disk, "
        "then run the same command again; finished work is kept."
    )
    assert everything_in(small_disk) == ["finished"]
    with pytest.raises(StorageError, match="no space left"):
        store.put_if_absent("also-too-large", bytes(2 << 20))
    assert store.get("finished") == b"content"


def test_a_file_size_limit_is_reported(folder_store: ObjectStore, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from kindling_storage import open_store\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "open_store(sys.argv[1]).put('a', bytes(5000))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder_store.uri], capture_output=True, text=True)
    assert "StorageError" in done.stderr
    assert "file too large while writing a" in done.stderr
    assert everything_in(tmp_path / "store") == []


def test_a_read_only_disk_is_reported(read_only_disk: Path) -> None:
    with pytest.raises(StorageError) as raised:
        open_store(f"file://{read_only_disk}").put("folder/a", b"")
    assert str(raised.value) == (
        f"{read_only_disk}/folder: found read-only file system for a; "
        f"allowed: a folder that user {os.geteuid()} may read and write, on a file system with hard links. "
        "To fix it: change its permissions or its mount, or use another folder."
    )


def test_a_file_in_the_way_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="found not a directory"):
        open_store(f"file://{tmp_path}/file/store").put("a", b"")
    (tmp_path / "store" / "a").mkdir(parents=True)
    with pytest.raises(StorageError, match="found is a directory"):
        open_store(f"file://{tmp_path}/store").put("a", b"")
    assert everything_in(tmp_path / "store") == ["a"]


def test_a_file_that_cannot_be_read_is_reported(folder_store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no such file or directory"):
        folder_store.put("a", tmp_path / "nothing")
    assert not folder_store.exists("a")


def test_a_put_that_fails_half_way_leaves_the_old_object(folder_store: ObjectStore, tmp_path: Path) -> None:
    class Failing:
        def __init__(self) -> None:
            self.chunks = [b"half"]

        def seekable(self) -> bool:
            return False

        def read(self, size: int) -> bytes:
            return self.chunks.pop()  # the second time raises

    folder_store.put("a", b"old")
    with pytest.raises(IndexError):
        folder_store.put("a", Failing())
    assert folder_store.get("a") == b"old"
    assert everything_in(tmp_path / "store") == ["a"]


def test_links_that_lead_nowhere_and_sockets_are_not_listed(folder_store: ObjectStore, tmp_path: Path) -> None:
    folder_store.put("a", b"")
    (tmp_path / "store" / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / "store" / "pipe")
    (tmp_path / "store" / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"")
    assert [info.path for info in folder_store.list()] == ["a", os.fsdecode(b"not-utf8-\xff")]


def test_links_to_folders_are_followed_once_and_lead_round_in_no_circle(
    folder_store: ObjectStore, tmp_path: Path
) -> None:
    root = tmp_path / "store"
    folder_store.put("here/a", b"")
    folder_store.put("there/b", b"")
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "deep" / "c").write_bytes(b"")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "again").symlink_to(root / "here")
    (root / "up").symlink_to(root)
    (root / "itself").symlink_to(root / "itself")
    (root / "here" / "beside").symlink_to(root / "there")
    (root / "there" / "beside").symlink_to(root / "here")
    (tmp_path / "outside" / "back").symlink_to(root)
    assert [info.path for info in folder_store.list()] == ["here/a", "linked/deep/c", "there/b"]
    assert [info.path for info in folder_store.child("linked").list()] == ["back/here/a", "back/there/b", "deep/c"]


def test_objects_of_a_folder_are_local_files(folder_store: ObjectStore, tmp_path: Path) -> None:
    assert folder_store.local_path("a/b") == tmp_path / "store" / "a" / "b"


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("file:///data/store", "file:///data/store"),
        ("file:///data/store/", "file:///data/store"),
        ("file:///data//a/../store", "file:///data/store"),
        ("file:///with space/and%20quoted", "file:///with%20space/and%20quoted"),
        ("file:///a#b?c", "file:///a%23b%3Fc"),
        ("/data/with space/50%25/", "file:///data/with%20space/50%2525"),
    ],
)
def test_a_folder_uri_is_read_in_either_spelling(uri: str, kept: str) -> None:
    assert open_store(uri).uri == kept
    assert open_store(open_store(uri).uri).uri == kept


@pytest.mark.parametrize("uri", ["", "data/store", "http://host/x", "s3://", "s3:///x", "gs://bucket"])
def test_a_uri_of_another_form_is_refused(uri: str) -> None:
    with pytest.raises(SpecError) as raised:
        open_store(uri)
    assert str(raised.value) == (
        f"storage uri: found {uri!r}; allowed: file:///folder or s3://bucket/prefix. "
        "To fix it: write one of these two forms."
    )


@pytest.mark.parametrize("uri", ["file://data/store", "file://", "file://host/x"])
def test_a_folder_uri_must_be_absolute(uri: str) -> None:
    with pytest.raises(SpecError) as raised:
        open_store(uri)
    assert str(raised.value) == (
        f"storage uri: found {uri!r}; allowed: file:// followed by an absolute path, three slashes in all, "
        "as in file:///data/store. To fix it: write the absolute path."
    )


def test_a_folder_needs_no_s3_library() -> None:
    code = (
        "import sys, kindling_storage, kindling_storage.commit, kindling_storage.lock, kindling_storage.names\n"
        "kindling_storage.open_store('file:///nowhere').exists('x')\n"
        "print(sorted({'boto3', 'botocore', 'torch', 'ray', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
