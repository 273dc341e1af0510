"""The cache: the newest version wins, whoever brought it, and whoever is concerned is told."""

from __future__ import annotations

from typing import Any

from kindling_api.references import Reference
from kindling_operator.cache import ObjectCache, is_ours
from kindling_operator.children import key_of_object

Object = dict[str, Any]

TINY = Reference("PretrainRun", "team", "tiny")
BOOKS = Reference("DatasetBuild", "team", "books")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def document(reference: Reference, version: int, **status: Any) -> Object:
    metadata = {"name": reference.name, "namespace": "team", "uid": reference.name, "resourceVersion": str(version)}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": reference.kind, "metadata": metadata, "status": status}


def job(version: int, run: Reference = TINY) -> Object:
    labels = {"kindling.dev/kind": run.kind, "kindling.dev/name": run.name, "kindling.dev/attempt": "1"}
    metadata: Object = {"name": f"{run.name}-1", "namespace": "team", "uid": "1", "resourceVersion": str(version)}
    metadata["labels"] = labels
    spec = {"suspend": False, "template": {"spec": {"containers": ["much"]}}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata | {"managedFields": ["much"]}, "spec": spec}


def cache_and_calls(clock: Clock | None = None) -> tuple[ObjectCache, list[Reference]]:
    told: list[Reference] = []
    return ObjectCache(told.append, clock=clock or Clock()), told


def test_a_document_and_its_children_wake_the_document() -> None:
    cache, told = cache_and_calls()
    cache.saw(document(TINY, 1))
    cache.saw(job(2))
    assert told == [TINY, TINY]
    assert [one["metadata"]["name"] for one in cache.children(TINY, "Job")] == ["tiny-1"]


def test_what_decides_nothing_is_not_kept() -> None:
    cache, _ = cache_and_calls()
    cache.saw(job(1))
    kept = cache.children(TINY, "Job")[0]
    assert kept["spec"] == {"suspend": False}
    assert "managedFields" not in kept["metadata"]


def test_an_older_version_never_replaces_a_newer_one() -> None:
    cache, told = cache_and_calls()
    cache.learned(document(TINY, 5, phase="Running"))
    cache.saw(document(TINY, 4, phase="Pending"))
    cache.learned(document(TINY, 3, phase="Pending"))
    seen = cache.document(TINY)
    assert seen and seen["status"]["phase"] == "Running"
    assert told == []


def test_the_echo_of_an_own_write_wakes_nobody() -> None:
    cache, told = cache_and_calls()
    cache.learned(document(TINY, 5))
    cache.saw(document(TINY, 5))
    assert told == []


def test_an_object_that_is_gone_wakes_its_document_and_an_outdated_goodbye_is_ignored() -> None:
    cache, told = cache_and_calls()
    cache.saw(document(TINY, 1))
    cache.saw(job(4))
    cache.gone(job(3))
    assert cache.children(TINY, "Job")
    cache.gone(job(6))
    assert not cache.children(TINY, "Job")
    assert told == [TINY, TINY, TINY]


def test_referrers_are_told_when_what_they_wait_for_comes_ends_or_goes_and_not_of_its_progress() -> None:
    cache, told = cache_and_calls()
    cache.refers(TINY, [BOOKS])
    cache.saw(document(BOOKS, 1))
    cache.saw(document(BOOKS, 2, phase="Running"))
    cache.saw(document(BOOKS, 3, phase="Running", progress={"percent": 50}))
    assert told.count(TINY) == 2
    cache.learned(document(BOOKS, 4, phase="Succeeded", result={"digest": "sha256:1"}))
    assert told.count(TINY) == 3
    cache.gone(document(BOOKS, 5))
    assert told.count(TINY) == 4


def test_a_document_that_refers_elsewhere_is_not_told_any_more() -> None:
    cache, told = cache_and_calls()
    cache.refers(TINY, [BOOKS])
    cache.refers(TINY, [])
    cache.saw(document(BOOKS, 1))
    assert TINY not in told


def test_what_no_watch_has_shown_for_long_is_unconfirmed() -> None:
    clock = Clock()
    cache, _ = cache_and_calls(clock)
    cache.learned(document(TINY, 1))
    clock.now += 50
    cache.learned(document(TINY, 2))
    assert cache.unconfirmed(longer_than=60) == []
    clock.now += 11
    assert [key.name for key in cache.unconfirmed(longer_than=60)] == ["tiny"]
    cache.saw(document(TINY, 2))
    assert cache.unconfirmed(longer_than=60) == []


def test_a_watch_that_is_only_behind_is_not_taken_for_a_deaf_one() -> None:
    clock = Clock()
    cache, _ = cache_and_calls(clock)
    cache.learned(document(TINY, 1))
    cache.learned(document(TINY, 2))
    clock.now += 50
    cache.saw(document(TINY, 1))
    clock.now += 50
    assert cache.unconfirmed(longer_than=60) == []


def test_what_the_watch_showed_before_the_answer_to_the_write_came_is_confirmed() -> None:
    clock = Clock()
    cache, _ = cache_and_calls(clock)
    cache.saw(document(TINY, 7))
    cache.learned(document(TINY, 7))
    clock.now += 100
    assert cache.unconfirmed(longer_than=60) == []


def test_what_is_said_of_a_job_wakes_its_run_and_is_kept_though_it_comes_first() -> None:
    cache, told = cache_and_calls()
    about = {"kind": "Job", "namespace": "team", "name": "tiny-1", "uid": "1"}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "involvedObject": about,
        "message": "quota",
    }
    cache.warned(event)
    assert told == []
    cache.saw(job(2))
    cache.warned(event)
    assert told == [TINY, TINY]
    (known,) = cache.children(TINY, "Job")
    assert [one["message"] for one in cache.warnings([known])] == ["quota"]
    assert cache.warnings([{**known, "metadata": {**known["metadata"], "uid": "2"}}]) == [], "another of its name"


def test_only_documents_and_labelled_children_are_ours() -> None:
    assert is_ours(document(TINY, 1))
    assert is_ours(job(1))
    stranger = job(1)
    stranger["metadata"]["labels"] = {"kindling.dev/kind": "Deployment", "kindling.dev/name": "tiny"}
    assert not is_ours(stranger)
    stranger["metadata"]["labels"] = None
    assert not is_ours(stranger)


def test_an_object_of_the_same_name_that_came_later_outlives_the_news_that_the_first_is_gone() -> None:
    cache, _ = cache_and_calls()
    cache.saw(document(TINY, 5))
    version = cache.version(key_of_object(document(TINY, 5)))
    cache.saw(document(TINY, 9, phase="Running"))  # while the API server was asked
    cache.forget(key_of_object(document(TINY, 5)), version)
    assert cache.document(TINY)
    cache.forget(key_of_object(document(TINY, 5)), 9)
    assert cache.document(TINY) is None
