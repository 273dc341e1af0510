"""A key that changes while it is used."""

from __future__ import annotations

import os
import pickle
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kindling_api.errors import RefusedError, StorageError, WithdrawnError
from kindling_api.v1alpha1.storage import CREDENTIALS_VARIABLE, SOURCE_CREDENTIALS_VARIABLE
from kindling_storage import ObjectStore, open_store
from kindling_storage.lock import LOCK, lock
from kindling_storage.outage import outage

KEY_REFUSALS = [
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (400, "ExpiredToken"),
    (400, "InvalidToken"),
]


@pytest.fixture
def guarded(door: Any) -> tuple[Any, ObjectStore]:
    """The door, and a store behind it."""
    return door, open_store(f"{door.uri}/runs", endpoint=door.endpoint)


def soon(change: Callable[[], object], seconds: float = 1.0) -> None:
    """It happens a little later."""
    threading.Timer(seconds, change).start()


OPERATIONS: list[tuple[str, Callable[[ObjectStore], Any]]] = [
    ("reading", lambda store: store.get("a")),
    ("a range", lambda store: store.get_range("a", 0, 4)),
    ("writing", lambda store: store.put("a", b"text")),
    ("writing on condition", lambda store: store.put_if_absent("lock", b"")),
    ("listing", lambda store: list(store.list())),
    ("looking", lambda store: store.exists("a")),
    ("deleting", lambda store: store.delete("b")),
]


@pytest.mark.parametrize("work", [work for _, work in OPERATIONS], ids=[what for what, _ in OPERATIONS])
@pytest.mark.parametrize(("status", "code"), [(403, "SignatureDoesNotMatch"), (400, "ExpiredToken")])
def test_whatever_is_done_waits_for_the_new_key_and_goes_on_with_it(
    guarded: tuple[Any, ObjectStore], secret: Any, work: Callable[[ObjectStore], Any], status: int, code: str
) -> None:
    door, store = guarded
    store.put("a", b"text")
    work(store)
    door.key, door.refusal = "second", (status, code)
    waiting = threading.Thread(target=work, args=(store,))
    waiting.start()
    time.sleep(0.2)
    said = outage()
    secret.put("second", "secret")
    waiting.join(10)
    assert said.startswith("waiting for bucket ") and said.endswith((code, str(status)))
    assert (waiting.is_alive(), door.refused > 0, outage()) == (False, True, "")


@pytest.mark.parametrize(("status", "code"), KEY_REFUSALS, ids=[code for _, code in KEY_REFUSALS])
def test_a_key_that_the_server_takes_no_more_is_waited_for(
    guarded: tuple[Any, ObjectStore], secret: Any, status: int, code: str
) -> None:
    door, store = guarded
    store.put("a", b"text")
    door.key, door.refusal = "second", (status, code)
    soon(lambda: secret.put("second", "secret"), 0.2)
    assert (store.get("a"), door.refused > 0, outage()) == (b"text", True, "")


def test_a_session_is_renewed_before_it_ends(guarded: tuple[Any, ObjectStore], secret: Any) -> None:
    door, store = guarded
    secret.put("session", "secret", "token 1")
    door.key, door.token = "session", "token 1"
    store.put("a", b"text")
    secret.put("session", "secret", "token 2")
    door.token = "token 2"
    assert (store.get("a"), door.refused) == (b"text", 0)


def test_a_right_that_was_lost_for_a_moment_is_waited_for(guarded: tuple[Any, ObjectStore]) -> None:
    door, store = guarded
    store.put("a", b"text")
    door.forbidden = lambda method, _: method == "PUT"
    soon(lambda: setattr(door, "forbidden", lambda *_: False))
    store.put("a", b"new")
    assert (store.get("a"), door.refused > 0, outage()) == (b"new", True, "")


def test_what_stays_refused_is_said_after_a_while_and_may_be_tried_again(
    guarded: tuple[Any, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling_storage.s3.retry.REFUSED_SECONDS", 1.0)
    door, store = guarded
    store.put("a", b"text")
    door.key = "another"
    with pytest.raises(
        WithdrawnError, match="found InvalidAccessKeyId \\(no\\), writing runs/a; allowed: credentials"
    ) as e:
        store.put("a", b"text")
    assert (e.value.exit_code, outage()) == (1, "")


@pytest.mark.parametrize(
    ("forbidden", "work"),
    [
        (lambda method, _: method == "DELETE", lambda store: store.delete("a")),
        (lambda method, path: method == "GET" and "list-type" not in path, lambda store: store.get("a")),
        (lambda method, path: method == "GET" and "list-type" in path, lambda store: list(store.list())),
    ],
    ids=["deleting", "reading", "listing"],
)
def test_a_right_that_was_never_given_is_not_waited_for(
    guarded: tuple[Any, ObjectStore], forbidden: Callable[[str, str], bool], work: Callable[[ObjectStore], Any]
) -> None:
    door, store = guarded
    door.forbidden = forbidden
    store.put("a", b"text")
    with pytest.raises(RefusedError, match="AccessDenied"):
        work(store)
    assert outage() == ""


def test_who_may_not_list_is_not_kept_waiting_for_what_is_missing(guarded: tuple[Any, ObjectStore]) -> None:
    door, store = guarded
    door.forbidden = lambda method, path: "list-type" in path or path.endswith("missing")
    store.put("a", b"text")
    store.get("a")
    with pytest.raises(RefusedError, match="AccessDenied"):
        store.get("missing")


def test_a_key_that_never_worked_is_refused_at_once(guarded: tuple[Any, ObjectStore]) -> None:
    door, store = guarded
    door.key = "another"
    with pytest.raises(
        RefusedError, match="at the first contact; allowed: credentials that this server knows"
    ) as error:
        store.put("a", b"text")
    assert (error.value.exit_code, door.refused) == (2, 1)


def test_a_key_in_the_environment_is_not_waited_for_since_no_other_comes(
    guarded: tuple[Any, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    door, store = guarded
    monkeypatch.delenv(CREDENTIALS_VARIABLE)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store.put("a", b"text")
    door.key = "another"
    with pytest.raises(RefusedError):
        store.put("a", b"text")


def test_a_folder_without_a_key_is_named(guarded: tuple[Any, ObjectStore], secret: Any) -> None:
    _, store = guarded
    secret.put("", "secret")
    with pytest.raises(
        StorageError, match="no usable credentials \\(CredentialRetrievalError\\), at the first contact"
    ):
        store.put("a", b"text")


@pytest.fixture
def lake(door: Any, source_secret: Any) -> tuple[Any, ObjectStore]:
    """A door that the products' key does not open, and a store behind it with a Secret of its own."""
    door.key = "lake"
    source_secret.put("lake", "secret")
    return door, open_store(f"{door.uri}/raw", endpoint=door.endpoint, credentials_secret="lake")


def test_a_source_is_opened_with_the_key_of_its_own_secret(lake: tuple[Any, ObjectStore], secret: Any) -> None:
    door, store = lake
    pickle.loads(pickle.dumps(store)).put("a", b"text")
    assert (store.get("a"), door.refused) == (b"text", 0)
    with pytest.raises(RefusedError, match="InvalidAccessKeyId"):
        open_store(f"{door.uri}/raw", endpoint=door.endpoint).get("a")


def test_a_changed_secret_of_a_source_is_waited_for(lake: tuple[Any, ObjectStore], source_secret: Any) -> None:
    door, store = lake
    store.put("a", b"text")
    door.key = "second"
    soon(lambda: source_secret.put("second", "secret"), 0.2)
    assert (store.get("a"), door.refused > 0, outage()) == (b"text", True, "")


def test_a_source_whose_secret_is_not_mounted_is_not_asked_with_another_ones_key(lake: tuple[Any, ObjectStore]) -> None:
    door, _ = lake
    door.key = "first"
    store = open_store(f"{door.uri}/raw", endpoint=door.endpoint, credentials_secret="other")
    with pytest.raises(StorageError, match="no usable credentials"):
        store.get("a")


def test_without_a_cluster_a_sources_key_is_found_where_boto3_looks(
    lake: tuple[Any, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    door, store = lake
    for name in (CREDENTIALS_VARIABLE, SOURCE_CREDENTIALS_VARIABLE):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "lake")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    store.put("a", b"text")
    assert (store.get("a"), door.refused) == (b"text", 0)


def test_readers_never_see_half_a_change(guarded: tuple[Any, ObjectStore], secret: Any) -> None:
    from kindling_storage.s3.credentials import MountedCredentials

    credentials, seen, ended = MountedCredentials(secret.folder), set(), threading.Event()
    secret.put("0", "0", "0")

    def look() -> None:
        while not ended.is_set():
            seen.add(credentials.get_frozen_credentials()[:3])

    readers = [threading.Thread(target=look) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(100):
        secret.put(*[str(number)] * 3)
    ended.set()
    for reader in readers:
        reader.join()
    assert credentials.get_frozen_credentials()[:3] == ("99",) * 3
    assert [each for each in seen if len(set(each)) > 1] == []


def test_a_place_stays_held_over_a_change_of_keys(guarded: tuple[Any, ObjectStore], secret: Any) -> None:
    from kindling_storage.s3.lease import lease
    from kindling_storage.s3.store import S3Store

    door, store = guarded
    assert isinstance(store, S3Store)
    with lease(store, LOCK, seconds=0.6) as held:
        time.sleep(0.5)
        door.key = "second"
        time.sleep(1)
        secret.put("second", "secret")
        time.sleep(3)
        held.check()
        assert door.refused > 0
    with lock(store, LOCK):
        pass


@contextmanager
def minio(program: str, folder: Path, address: str, password: str) -> Iterator[None]:
    """The server, on the same folder whenever it is started."""
    command = [program, "server", "--quiet", "--address", address, str(folder)]
    settings = {**os.environ, "MINIO_ROOT_USER": "kindling-test", "MINIO_ROOT_PASSWORD": password}
    with subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_minio_starts_again_with_another_password(
    minio_program: str, free_port: int, secret: Any, tmp_path: Path
) -> None:
    address, folder = f"127.0.0.1:{free_port}", tmp_path / "minio"
    (folder / "bucket").mkdir(parents=True)
    secret.put("kindling-test", "first-password")
    store = open_store("s3://bucket/runs", endpoint=f"http://{address}")
    with minio(minio_program, folder, address, "first-password"):
        for _ in range(50):
            try:
                store.put("a", b"text")
                break
            except StorageError:
                time.sleep(0.2)
        assert (store.get("a"), store.exists("a")) == (b"text", True)
    with minio(minio_program, folder, address, "second-password"):
        soon(lambda: secret.put("kindling-test", "second-password"), 5)
        assert (store.exists("a"), store.get("a")) == (True, b"text")
        store.put("a", b"new")
