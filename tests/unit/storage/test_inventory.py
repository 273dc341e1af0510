"""What a store holds, what uses it, and what may go: on stores laid out by hand."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from kindling_api.base import Kind, canonical_json, digest_of
from kindling_api.v1alpha1.products import CheckpointManifest, ModelManifest
from kindling_storage import ObjectStore
from kindling_storage.inventory import Verdict, discard, items_of, title, used_by, verdicts
from kindling_storage.lock import LOCK, held_by, lock
from kindling_storage.names import Published, publish
from kindling_storage.origin import ORIGIN

DAY = 86_400.0
SHAPE = {"architecture": "llama", "layers": 1, "heads": 2, "kv_heads": 2, "width": 16, "ffn_width": 32, "context": 32}
NOBODY = digest_of(b"nobody")


def folder_of(letter: str) -> str:
    return f"models/{letter * 16}"


def put_model(store: ObjectStore, letter: str, *, base: str | None = None, name: str = "", lost: bool = False) -> str:
    """A finished model in the folder of a key; returns its digest."""
    place = store.child(folder_of(letter))
    info = place.put("model/weights", letter.encode() * 10)
    files = [{"path": "model/weights", "size": 11 if lost else 10, "digest": info.digest}]
    manifest = ModelManifest.model_validate(
        dict(key=digest_of(letter.encode()), files=files, spec={}, dataset=NOBODY, dataset_uri="file:///x", base=base)
        | dict(tokenizer=NOBODY, shape=SHAPE, vocab_size=257, steps=1, tokens=1)
    )
    place.put("manifest.json", manifest.to_bytes())
    if name:
        kind: Kind = "PretrainRun"
        publish(store, kind, "default", name, Published(uri=place.uri, digest=manifest.digest, key=manifest.key))
    return manifest.digest


def put_checkpoint(store: ObjectStore, letter: str, dataset: str) -> str:
    place = store.child(f"{folder_of(letter)}/checkpoints/step-00000001-a1")
    manifest = CheckpointManifest.model_validate(
        dict(key=NOBODY, files=[], step=1, tokens=1, attempt=1, layout={}, dataset=dataset, tokenizer=NOBODY)
        | dict(shape=SHAPE, vocab_size=257)
    )
    place.put("manifest.json", manifest.to_bytes())
    return manifest.digest


def put_origin(store: ObjectStore, letter: str, document: str, *reads: str) -> None:
    origin = {"madeBy": document, "reads": [{"uri": f"s3://elsewhere/{folder}"} for folder in reads]}
    store.put(f"{folder_of(letter)}/{ORIGIN}", canonical_json(origin))


def judged(
    store: ObjectStore, *, older_than: float = 0.0, unused: bool = True, after: float = DAY
) -> Sequence[Verdict]:
    return verdicts(items_of(store), now=time.time() + after, older_than=older_than, unused=unused)


def going(verdicts: Sequence[Verdict]) -> list[str]:
    return [verdict.item.folder[len("models/")] for verdict in verdicts if not verdict.stays]


def test_what_a_name_leads_to_stays_with_all_that_it_was_made_from(store: ObjectStore) -> None:
    first = put_model(store, "a")
    second = put_model(store, "b", base=first)
    put_model(store, "c", base=second, name="mine")
    put_model(store, "d", base=second)
    assert going(judged(store)) == ["d"]
    assert [verdict.stays for verdict in judged(store)][:3] == [
        f"{folder_of('b')} was made from it",
        "PretrainRun/mine was made from it",
        "its name leads to it",
    ]
    assert going(judged(store, unused=False)) == []


def test_a_base_that_was_a_checkpoint_and_a_model_that_scored_are_part_of_the_lineage(
    folder_store: ObjectStore,
) -> None:
    put_model(folder_store, "a")
    put_model(folder_store, "c", base=put_checkpoint(folder_store, "a", NOBODY), name="mine")
    put_model(folder_store, "b")
    put_model(folder_store, "d")
    put_origin(folder_store, "c", "AlignmentRun/default/mine", folder_of("b"))
    assert going(judged(folder_store)) == ["d"]
    assert {folder: [title(one) for one in using] for folder, using in used_by(items_of(folder_store)).items()} == {
        folder_of("a"): ["PretrainRun/mine"],
        folder_of("b"): ["PretrainRun/mine"],
        folder_of("c"): [],
        folder_of("d"): [],
    }


def test_what_a_process_works_at_stays_with_what_it_reads(folder_store: ObjectStore) -> None:
    put_model(folder_store, "a")
    put_origin(folder_store, "b", "PretrainRun/default/next", folder_of("a"))
    with lock(folder_store.child(folder_of("b")), LOCK):
        stay = {verdict.item.folder[-1]: verdict.stays for verdict in judged(folder_store)}
        assert stay["a"] == "PretrainRun/next was made from it" and stay["b"].endswith("works at it")
    assert going(judged(folder_store)) == ["a", "b"]
    assert going(judged(folder_store, unused=False)) == ["b"]


@pytest.mark.parametrize(("after", "goes"), [(DAY, []), (8 * DAY, ["a", "b"])], ids=["a day old", "eight days old"])
def test_what_is_younger_stays(folder_store: ObjectStore, after: float, goes: list[str]) -> None:
    put_model(folder_store, "a")
    put_checkpoint(folder_store, "b", NOBODY)
    assert going(judged(folder_store, older_than=7 * DAY, after=after)) == goes


def test_states_are_told_apart(folder_store: ObjectStore) -> None:
    put_model(folder_store, "a")
    put_model(folder_store, "b", lost=True)
    put_checkpoint(folder_store, "c", NOBODY)
    folder_store.put(f"{folder_of('d')}/manifest.json", b"{")
    folder_store.put("models/notes.txt", b"a file of somebody's")
    assert [(item.folder[-1], item.state, *item.faults) for item in items_of(folder_store)] == [
        ("a", "finished"),
        ("b", "damaged", "model/weights has 10 bytes, not 11"),
        ("c", "unfinished"),
        ("d", "damaged", "manifest.json is torn"),
    ]


def test_a_product_goes_whole_and_nothing_else_does(store: ObjectStore) -> None:
    put_model(store, "a")
    put_model(store, "b", name="mine")
    (item, _) = items_of(store)
    assert discard(store, item)
    assert [item.folder for item in items_of(store)] == [folder_of("b")]


def test_a_name_that_has_come_since_saves_it(folder_store: ObjectStore) -> None:
    put_model(folder_store, "a")
    (item,) = items_of(folder_store)
    put_model(folder_store, "a", name="mine")
    assert not discard(folder_store, item)
    assert items_of(folder_store)[0].state == "finished"


def test_a_lock_can_be_seen_without_taking_it_lease(store: ObjectStore) -> None:
    assert held_by(store, LOCK) is None
    with lock(store, LOCK):
        held = held_by(store, LOCK)
        assert held is not None and "pid" in held
    assert held_by(store, LOCK) is None
