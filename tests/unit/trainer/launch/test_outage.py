"""A store that is away for a while, in the middle of a run."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kindling_api.v1alpha1.products import ModelManifest
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage.commit import read_manifest
from kindling_trainer.checkpoint.folders import folders

RunFactory = Callable[..., Path]


class Gate:
    """A way to a server. While it is shut connections are refused, and those that were there have broken."""

    def __init__(self, endpoint: str) -> None:
        address = urlsplit(endpoint)
        self._server = (address.hostname, address.port)
        self._connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.open()

    def open(self) -> None:
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._connections.clear()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(self._server)
                self._connections += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def gated(new_bucket: Callable[[str], Any]) -> Iterator[tuple[Gate, StorageSpec]]:
    """A gate, and a store behind it."""
    bucket = new_bucket("moto")
    gate = Gate(bucket.endpoint)
    yield gate, StorageSpec(uri=f"{bucket.uri}/runs", endpoint=f"http://127.0.0.1:{gate.port}")
    gate.shut()


@pytest.mark.slow
@pytest.mark.exhaustive
def test_training_goes_on_while_the_store_is_away_and_nothing_is_lost(
    run_file: RunFactory, runs: Any, gated: tuple[Gate, StorageSpec], dataset: Callable[..., str]
) -> None:
    gate, storage = gated
    data = dataset()
    recipe = {"training": {"steps": 1500, "batch": {"tokens": 128}}, "checkpoint": {"every": 50, "keep": 50}}
    calm = run_file(name="calm", dataset=data, **recipe)
    runs.finish(calm)

    disturbed = run_file(name="disturbed", dataset=data, store=storage, **recipe)
    process = runs.start(disturbed)
    wait_until(lambda: step_of(runs, disturbed) >= 60)
    gate.shut()
    at_shut = step_of(runs, disturbed)
    wait_until(lambda: step_of(runs, disturbed) >= at_shut + 150)
    assert process.poll() is None, "the store is away, and training goes on"
    gate.open()
    opened = time.monotonic()
    wait_until(lambda: any(f.step > at_shut + 50 and whole for f, whole in folders(runs.store(disturbed)).items()))
    assert time.monotonic() - opened < 60
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert runs.losses(disturbed) == runs.losses(calm)
    models = [read_manifest(runs.store(run), ModelManifest) for run in (disturbed, calm)]
    assert models[0].files == models[1].files


@pytest.mark.slow
def test_a_store_that_is_away_at_the_start_is_no_mistake_of_the_user(
    run_file: RunFactory, runs: Any, gated: tuple[Gate, StorageSpec], dataset: Callable[..., str]
) -> None:
    gate, storage = gated
    run = run_file(name="early", dataset=dataset(), store=storage)
    gate.shut()
    errors = runs.finish(run, code=1)
    assert "at the first contact; allowed: an S3 server that answers" in errors
    assert runs.last_word(run).failure.reason == "StorageUnreachable"


@pytest.mark.slow
@pytest.mark.exhaustive
def test_all_processes_of_a_run_go_on_with_a_key_that_was_changed_under_them(
    run_file: RunFactory, runs: Any, door: Any, secret: Any, dataset: Callable[..., str]
) -> None:
    storage = StorageSpec(uri=f"{door.uri}/runs", endpoint=door.endpoint)
    recipe = {"training": {"steps": 1500, "batch": {"tokens": 128}}, "checkpoint": {"every": 50, "keep": 2}}
    run = run_file(name="rotated", dataset=dataset(), store=storage, **recipe)
    process = runs.start(run)
    for number in range(3):
        wait_until(lambda number=number: step_of(runs, run) >= 60 + 200 * number)
        before, door.key = door.refused, f"key {number}"
        wait_until(lambda before=before: door.refused > before + 1)
        assert process.poll() is None, "the key is refused, and training goes on"
        secret.put(door.key, "secret")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert runs.last_word(run).result.steps == 1500


@pytest.mark.slow
def test_a_key_that_never_worked_is_told_as_such(
    run_file: RunFactory, runs: Any, door: Any, dataset: Callable[..., str]
) -> None:
    door.key = "another"
    storage = StorageSpec(uri=f"{door.uri}/runs", endpoint=door.endpoint)
    run = run_file(name="wrong", dataset=dataset(), store=storage)
    assert "found InvalidAccessKeyId (no), at the first contact" in runs.finish(run, code=2)
    failure = runs.last_word(run).failure
    assert (failure.reason, failure.refused) == ("UserError", True)


def step_of(runs: Any, run: Path) -> int:
    with suppress(FileNotFoundError):
        training = runs.last_word(run).training
        return 0 if training is None else training.step
    return 0


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until, "this did not come about"
        time.sleep(0.05)
