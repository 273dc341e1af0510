"""A repository of the Hub is a store that is read at one commit, whatever the Hub does meanwhile."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Fault, Hub, changed, slow, status

from kindling_api.errors import (
    IntegrityError,
    KindlingError,
    NoRepositoryError,
    NotFoundError,
    RefusedError,
    SpecError,
    StorageError,
    UnreachableError,
)
from kindling_api.hub import parse_hub_uri
from kindling_storage import open_store
from kindling_storage.globs import find
from kindling_storage.hub import errors, repository
from kindling_storage.outage import outage

WEIGHTS = os.urandom(200_000)
FILES = {"config.json": b'{"a": 1}', "model.safetensors": WEIGHTS, "sub/one.txt": b"one", "sub/two.txt": b"two"}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process, and with less patience."""
    monkeypatch.setattr(errors, "WAITS", (0.05, 0.05))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_PROGRESS_BARS", True)
    _forget()
    yield
    _forget()


def _forget() -> None:
    repository._commit.cache_clear()
    repository._files.cache_clear()


PLACES = {
    "hf://a/b": "hf://a/b@main",
    "hf://a/b@v1.0": "hf://a/b@v1.0",
    "hf://a/b@refs%2Fpr%2F1": "hf://a/b@refs%2Fpr%2F1",
    "hf://datasets/a/b/": "hf://datasets/a/b@main",
    "hf://datasets/a/b@x/data/*.parquet": "hf://datasets/a/b@x/data/*.parquet",
}


@pytest.mark.parametrize(("text", "place"), PLACES.items())
def test_a_place_reads_the_same_however_it_is_written(text: str, place: str) -> None:
    assert str(parse_hub_uri(text)) == place


@pytest.mark.parametrize("text", ["hf://a", "hf://a/", "hf://datasets/a", "hf:///a/b", "hf://a/b@", "hf://a b/c"])
def test_a_place_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"spec.base.uri: found 'hf:.*; allowed: hf://owner/name\[@revision\] or"):
        parse_hub_uri(text, "spec.base.uri")


def test_a_repository_is_read_as_any_store(hub: Hub) -> None:
    commit = hub.model("me/tiny", FILES).branches["main"]
    store = pickle.loads(pickle.dumps(open_store("hf://me/tiny")))
    assert {info.path: store.get(info.path) for info in store.list()} == FILES
    assert [info.path for info in store.list("sub/")] == ["sub/one.txt", "sub/two.txt"]
    assert (store.exists("config.json"), store.exists("sub"), store.exists("none")) == (True, False, False)
    assert store.info("model.safetensors").size == len(WEIGHTS)
    assert store.get_range("model.safetensors", 10, 5) == WEIGHTS[10:15]
    assert store.child("sub").get("one.txt") == b"one" and store.child("sub").uri == "hf://me/tiny@main/sub"
    assert open_store(f"hf://me/tiny@{commit}/sub").get("two.txt") == b"two"
    with pytest.raises(NotFoundError):
        store.get("none")
    with pytest.raises(StorageError, match="found something to write; allowed: reading alone"):
        store.put("config.json", b"")


def test_globs_and_folders_are_found_in_data(hub: Hub) -> None:
    hub.data("me/texts", {"data/a.jsonl": b"1", "data/b.jsonl": b"22", "README.md": b"", ".gitattributes": b""})
    for uri, paths in (
        ("hf://datasets/me/texts", ["README.md", "data/a.jsonl", "data/b.jsonl"]),
        ("hf://datasets/me/texts/data/*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("hf://datasets/me/texts@main/data/b.jsonl", ["b.jsonl"]),
        ("hf://datasets/me/texts/none.jsonl", []),
    ):
        found = find(uri, where="spec.data[0].uri", allowed="", open_store=open_store)
        assert sorted(found.paths) == paths
        assert all(open_store(found.uri).exists(path) for path in paths)


def test_a_revision_that_moves_is_read_at_the_commit_that_it_was(hub: Hub) -> None:
    first = hub.model("me/tiny", FILES).branches["main"]
    place = repository.pinned(parse_hub_uri("hf://me/tiny"))
    hub.model("me/tiny", FILES | {"config.json": b"{}"})
    assert place.revision == first
    assert open_store(str(place)).get("config.json") == FILES["config.json"]
    assert open_store("hf://me/tiny").get("config.json") == FILES["config.json"], "the same commit in one process"
    _forget()
    assert open_store("hf://me/tiny").get("config.json") == b"{}"


def test_what_is_fetched_at_a_commit_needs_no_hub_again(hub: Hub) -> None:
    commit = hub.model("me/tiny", FILES).branches["main"]
    store = open_store(f"hf://me/tiny@{commit}")
    assert store.get("model.safetensors") == WEIGHTS
    asked = len(hub.asked)
    _forget()
    hub.faults.append(status(503))
    assert store.get("model.safetensors") == WEIGHTS and store.exists("config.json")
    assert len(hub.asked) == asked


def test_a_token_opens_what_is_private(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.model("me/tiny", FILES).token = "hf_secret"
    with pytest.raises(NotFoundError, match=r"or none that this token may see; .* set HF_TOKEN"):
        open_store("hf://me/tiny").get("config.json")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert open_store("hf://me/tiny").get("config.json") == FILES["config.json"]


PASSING: dict[str, Fault] = {
    "too many": status(429, times=1, headers={"Retry-After": "0"}),
    "down for a moment": status(503, times=2),
    "a broken file": changed("model.safetensors", lambda content: b"x" * len(content), times=1),
    "a short file": changed("model.safetensors", lambda content: content[:1000], times=1),
    "a connection that breaks": changed("model.safetensors", lambda content: content[:1000], told=False, times=1),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_waited_for(hub: Hub, fault: Fault) -> None:
    hub.model("me/tiny", FILES)
    hub.faults.append(fault)
    assert open_store("hf://me/tiny").get("model.safetensors") == WEIGHTS
    assert outage() == ""


def gate(hub: Hub) -> None:
    hub.model("me/tiny").gated = True


LASTING: dict[str, tuple[Callable[[Hub], object], str, type[KindlingError], str]] = {
    "no repository": (
        lambda hub: None, "hf://me/none", NoRepositoryError,
        r"hf://me/none@main: found no model me/none at http://127.*; allowed: a model of the Hub. To fix it: correct",
    ),
    "no dataset": (lambda hub: None, "hf://datasets/me/tiny", NoRepositoryError, "found no dataset me/tiny"),
    "no revision": (
        lambda hub: None, "hf://me/tiny@v9", NoRepositoryError,
        "hf://me/tiny@v9: found no revision v9; allowed: a branch, tag or commit of me/tiny. To fix it: correct it",
    ),
    "no commit": (lambda hub: None, f"hf://me/tiny@{'0' * 40}", NoRepositoryError, "before the repository was"),
    "gated": (gate, "hf://me/tiny", RefusedError, "found a repository that one must ask for; .*accept its terms at"),
    "forbidden": (
        lambda hub: hub.faults.append(status(403)), "hf://me/tiny", RefusedError, "found HTTP 403: the token is refused"
    ),
    "too many": (
        lambda hub: hub.faults.append(status(429)), "hf://me/tiny", UnreachableError,
        "found HTTP 429; allowed: the Hub's answer. To fix it: run again later, or set HF_TOKEN",
    ),
    "broken": (lambda hub: hub.faults.append(status(500)), "hf://me/tiny", UnreachableError, "found HTTP 500"),
    "files broken": (
        lambda hub: hub.faults.append(status(502, "/resolve/")), "hf://me/tiny", UnreachableError,
        r"hf://me/tiny@[0-9a-f]{40}/model.safetensors: found HTTP 502",
    ),
    "another server": (
        lambda hub: hub.faults.append(status(200, "/api/")), "hf://me/tiny", StorageError,
        "found an answer that no Hub gives",
    ),
    "teapot": (lambda hub: hub.faults.append(status(418)), "hf://me/tiny", StorageError, "found HTTP 418; allowed: an"),
    "down": (lambda hub: hub.close(), "hf://me/tiny", UnreachableError, r"found no answer from http://127.*check the"),
    "short": (
        lambda hub: hub.faults.append(changed(".safetensors", lambda content: content[:1000])), "hf://me/tiny",
        IntegrityError, "model.safetensors: found .*; allowed: the file as the Hub lists it",
    ),
    "changed": (
        lambda hub: hub.faults.append(changed(".safetensors", lambda content: content[::-1])), "hf://me/tiny",
        IntegrityError, "model.safetensors: found content [0-9a-f]{12}… instead of [0-9a-f]{12}…; allowed: the file",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "uri", "kind", "message"), LASTING.values(), ids=LASTING)
def test_what_stays_is_told_and_leaves_nothing_that_counts(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Hub], object], uri: str, kind: type[KindlingError], message: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    hub.model("me/tiny", FILES)
    spoil(hub)
    with pytest.raises(kind, match=message) as caught:
        open_store(uri).get("model.safetensors")
    assert (type(caught.value), outage()) == (kind, "")
    assert not list(tmp_path.glob("hf/hub/models--*/snapshots/*/*.safetensors"))


def test_a_slow_hub_is_waited_for_a_while(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.model("me/tiny", FILES)
    hub.faults.append(slow(0.3))
    assert open_store("hf://me/tiny").get("config.json") == FILES["config.json"]
    _forget()
    monkeypatch.setattr(repository, "_SECONDS", 0.1)
    with pytest.raises(UnreachableError, match="found no answer from"):
        open_store("hf://me/tiny").get("config.json")


def test_a_cache_that_is_full_is_told(hub: Hub, small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.model("me/tiny", {"model.safetensors": os.urandom(3 << 20)})
    monkeypatch.setenv("HF_HOME", str(small_disk))
    with pytest.raises(StorageError, match=r"found no room in .*small/hub; allowed: room for it. .*set HF_HOME"):
        open_store("hf://me/tiny").get("model.safetensors")
    assert not list(small_disk.glob("hub/models--*/snapshots/*/*"))


def test_a_cache_that_cannot_be_written_is_told(
    hub: Hub, read_only_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.model("me/tiny", FILES)
    monkeypatch.setenv("HF_HOME", str(read_only_disk))
    with pytest.raises(StorageError, match=r"Read-only file system.*set HF_HOME to a folder that can be written"):
        open_store("hf://me/tiny").get("config.json")
