"""The lease that stands for a place in S3; short ones, so that the tests are."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from kindling_api.errors import ConflictError
from kindling_storage.lock import confirm
from kindling_storage.outage import outage
from kindling_storage.s3.lease import lease
from kindling_storage.s3.store import S3Store

HOLD_FOREVER = """
import pickle, sys, time
from kindling_storage.s3.lease import lease
with lease(pickle.loads(bytes.fromhex(sys.argv[1])), "lock", seconds=3):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lease_is_held_by_one_and_then_at_once_by_the_next(s3_store: S3Store) -> None:
    for _ in range(2):
        with lease(s3_store, "lock") as held:
            held.check()


def test_a_second_writer_is_told_who_the_first_is(s3_store: S3Store) -> None:
    with (
        lease(s3_store, "lock", seconds=1.5),
        pytest.raises(ConflictError) as raised,
        lease(s3_store, "lock", seconds=3),
    ):
        pass
    message = str(raised.value)
    assert message.startswith(f"{s3_store.uri}: found held by process {os.getpid()} on {os.uname().nodename}, since ")


@pytest.mark.slow
def test_a_lease_is_renewed_for_as_long_as_it_is_held(s3_store: S3Store) -> None:
    with lease(s3_store, "lock", seconds=1.5) as held:
        time.sleep(2.5)
        held.check()


@pytest.mark.slow
def test_a_killed_holders_lease_is_taken_over(s3_store: S3Store) -> None:
    command = [sys.executable, "-c", HOLD_FOREVER, pickle.dumps(s3_store).hex()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ConflictError, match=f"process {process.pid} on"), lease(s3_store, "lock", seconds=3):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    started = time.monotonic()
    with lease(s3_store, "lock", seconds=3) as held:
        assert time.monotonic() - started < 6
        held.check()


def test_a_holder_notices_that_its_lease_was_taken_over(s3_store: S3Store) -> None:
    with lease(s3_store, "lock", seconds=0.6) as held:
        s3_store.put("lock", b'{"pid": 7, "host": "elsewhere", "since": "now", "token": "other", "seconds": 60}')
        time.sleep(0.5)
        with pytest.raises(ConflictError, match="held by process 7 on elsewhere, since now"):
            held.check()
    assert b"elsewhere" in s3_store.get("lock")  # it is left to its new holder


@pytest.mark.slow
def test_a_lease_that_cannot_be_renewed_is_held_until_another_has_taken_it(proxied) -> None:
    proxy, store = proxied
    store.put_if_absent("any", b"")  # conditional writes have been tried out
    with lease(store, "lock", {"token": "mine"}, seconds=0.6) as held:
        proxy.cuts, proxy.after = 1000, 0
        time.sleep(1.5)
        held.check()
        until = time.monotonic() + 20
        while not outage() and time.monotonic() < until:
            time.sleep(0.1)
        assert f"bucket {store.bucket.name!r} at {proxy.endpoint} since" in outage()
        proxy.cuts = 0
        until = time.monotonic() + 10
        while outage() and time.monotonic() < until:
            time.sleep(0.1)
        assert outage() == ""
        confirm(store, "lock", "mine")
        store.put("lock", b'{"token": "another\'s"}')
        with pytest.raises(ConflictError):
            confirm(store, "lock", "mine")


@pytest.mark.parametrize(
    ("mine", "theirs", "at_once"),
    [(2, 1, True), (2, 2, False), (1, 2, False)],
    ids=["newer", "the same", "older"],
)
def test_a_newer_attempt_takes_the_lease_of_an_older_one_at_once(
    s3_store: S3Store, mine: int, theirs: int, at_once: bool
) -> None:
    me, them = ({"run": "PretrainRun/default/a", "attempt": each, "token": str(each)} for each in (mine, theirs))
    with lease(s3_store, "lock", them, seconds=1.5) as old:
        if at_once:
            with lease(s3_store, "lock", me):
                confirm(s3_store, "lock", str(mine))
                with pytest.raises(ConflictError, match="process"):
                    confirm(s3_store, "lock", old.token)
                time.sleep(0.8)
                with pytest.raises(ConflictError):
                    old.check()
        else:
            with pytest.raises(ConflictError), lease(s3_store, "lock", me, seconds=3):
                pass


@pytest.mark.slow
def test_a_renewal_whose_answer_was_lost_keeps_the_lease(proxied) -> None:
    proxy, store = proxied
    with lease(store, "lock", seconds=1.5) as held:
        proxy.cuts, proxy.after = 1, 0
        time.sleep(2.5)
        held.check()
    assert proxy.cuts == 0


@pytest.mark.slow
def test_an_object_that_is_no_lease_is_waited_for_and_then_taken(s3_store: S3Store) -> None:
    s3_store.put("lock", b"\xffnot a lease")
    time.sleep(2)  # the server states times in whole seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kindling_storage.s3.lease.SECONDS", 1.0)
        with lease(s3_store, "lock") as held:
            held.check()
