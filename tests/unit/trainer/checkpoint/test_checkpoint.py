"""Checkpoints: what is saved comes back, torn ones are passed over, a failed one costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from kindling_api.base import digest_of
from kindling_api.errors import ConflictError, StorageError
from kindling_api.v1alpha1.model import PRESETS
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.products import CheckpointManifest
from kindling_storage import ObjectStore, open_store
from kindling_storage.lock import confirm, lock
from kindling_trainer.checkpoint.folders import Folder, checkpoint_store, folders, newest_whole
from kindling_trainer.checkpoint.load import load
from kindling_trainer.checkpoint.save import Saver

State = dict[str, torch.Tensor]


@pytest.fixture
def run(tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "run").as_uri())


def saver(run: ObjectStore, attempt: int = 1, keep: int = 3, committing: Callable[[], None] = lambda: None) -> Saver:
    facts = CheckpointManifest(
        key=digest_of(b"key"),
        files=[],
        step=0,
        tokens=0,
        attempt=attempt,
        layout=Layout(),
        dataset=digest_of(b"dataset"),
        tokenizer=digest_of(b"tokenizer"),
        shape=PRESETS["llama-tiny"],
        vocab_size=64,
    )
    return Saver(run, facts, keep=keep, group=None, committing=committing, committed=lambda newest: None)


def state(value: float) -> State:
    return {"model.weight": torch.full((3, 5), value), "model.bias": torch.tensor([value], dtype=torch.bfloat16)}


def save(saver: Saver, *steps: int) -> None:
    for step in steps:
        saver.save(state(float(step)), step=step, tokens=10 * step)
    saver.wait()


def test_an_attempt_whose_place_was_taken_over_commits_nothing_more(run: ObjectStore) -> None:
    with lock(run, "lock") as held:
        older = saver(run, committing=partial(confirm, run, "lock", held.token))
        save(older, 5)
    with lock(run, "lock"), pytest.raises(ConflictError, match="allowed: one writer at a time"):
        save(older, 10)
    assert folders(run) == {Folder(5, 1): True, Folder(10, 1): False}


def test_what_is_saved_comes_back(run: ObjectStore) -> None:
    save(saver(run), 7)
    found = newest_whole(run)
    assert found is not None
    folder, manifest = found
    assert (folder.name, manifest.step, manifest.tokens) == ("step-00000007-a1", 7, 70)
    loaded = state(0.0)
    load(checkpoint_store(run, folder), loaded, None)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state(7.0).items())


def test_changes_after_saving_began_are_not_in_the_checkpoint(run: ObjectStore) -> None:
    mine, saving = state(1.0), saver(run)
    saving.save(mine, step=1, tokens=10)
    mine["model.weight"].fill_(9.0)
    saving.wait()
    loaded = state(0.0)
    load(checkpoint_store(run, Folder(1, 1)), loaded, None)
    assert torch.equal(loaded["model.weight"], torch.full((3, 5), 1.0))


def test_nothing_in_a_checkpoint_is_a_pickle(run: ObjectStore) -> None:
    save(saver(run), 1)
    names = [Path(info.path).name for info in run.list()]
    assert names == ["manifest.json", "metadata.json", "part-00000.safetensors"]


def test_only_the_newest_are_kept(run: ObjectStore) -> None:
    save(saver(run, keep=2), 1, 2, 3, 4)
    assert folders(run) == {Folder(3, 1): True, Folder(4, 1): True}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda part: part.unlink(), "part-00000.safetensors is missing"),
        (lambda part: part.write_bytes(part.read_bytes()[:-1]), "part-00000.safetensors has"),
        (lambda part: part.write_bytes(part.read_bytes()[:-1] + b"x"), "part-00000.safetensors has digest"),
        (lambda part: part.with_name("manifest.json").unlink(), "it was never committed"),
        (lambda part: part.with_name("manifest.json").write_text("{"), "manifest.json"),
    ],
    ids=["missing-part", "cut-part", "flipped-byte", "no-manifest", "torn-manifest"],
)
def test_a_torn_checkpoint_is_passed_over_with_its_reason(
    run: ObjectStore, caplog: pytest.LogCaptureFixture, damage: object, reason: str
) -> None:
    save(saver(run), 1, 2)
    part, heard = checkpoint_store(run, Folder(2, 1)).local_path("part-00000.safetensors"), list[str]()
    damage(part)  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        found = newest_whole(run, damaged=heard.append)
    assert found is not None and found[0] == Folder(1, 1)
    assert len(heard) == (reason != "it was never committed"), "what was begun and not committed is no damage"
    assert "checkpoint step-00000002-a1 is passed over" in caplog.text and reason in caplog.text


def test_a_later_attempt_saves_the_same_step_beside_the_damaged_one(run: ObjectStore) -> None:
    save(saver(run), 1)
    checkpoint_store(run, Folder(1, 1)).delete("part-00000.safetensors")
    save(saver(run, attempt=2), 1)
    found = newest_whole(run)
    assert found is not None and found[0] == Folder(1, 2)


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one(
    run: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    saving = saver(run)
    save(saving, 1)

    def full(*_: object) -> None:
        raise StorageError("No space left.")

    monkeypatch.setattr("kindling_trainer.checkpoint.save.put_file", full)
    saving.save(state(2.0), step=2, tokens=20)
    with pytest.raises(StorageError, match="No space left"):
        saving.wait()
    found = newest_whole(run)
    assert found is not None and found[0] == Folder(1, 1)
