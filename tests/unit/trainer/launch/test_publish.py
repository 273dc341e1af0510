"""The finished model on the Hub: once, whole, and told before anything is trained where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_server import Hub, status

from kindling_api.base import digest_of, key_of
from kindling_api.errors import RefusedError, UnreachableError
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import ModelManifest
from kindling_api.v1alpha1.publish import PublishSpec
from kindling_storage import ObjectStore, open_store
from kindling_storage.hub import errors
from kindling_trainer.launch.publish import check_target, put_on_hub

FILES = {"config.json": b"{}", "model.safetensors": b"\0" * 64, "chat_template.jinja": b"{{ messages }}"}
PLACE = PublishSpec(to="hf://me/tuned")


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "WAITS", ())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)


@pytest.fixture
def writer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token."""
    monkeypatch.setenv("HF_TOKEN", "hf_writer")


@pytest.fixture
def run(tmp_path: Path) -> ObjectStore:
    """The folder of a finished run."""
    store = open_store((tmp_path / "run").as_uri())
    for path, content in FILES.items():
        store.put(f"model/{path}", content)
    store.put("metrics.jsonl", b"no part of the model")
    return store


def finished(seed: int = 0) -> ModelManifest:
    shape = ModelShape(architecture="gpt2", layers=1, heads=1, kv_heads=1, width=8, ffn_width=32, context=8)
    facts = {"dataset_uri": "s3://b/d", "vocab_size": 8, "steps": 1, "tokens": 8, "shape": shape}
    digest = digest_of(b"")
    return ModelManifest(key=key_of(seed), files=[], spec={}, dataset=digest, tokenizer=digest, **facts)


@pytest.mark.usefixtures("writer")
def test_a_model_is_put_there_once_in_one_commit(hub: Hub, run: ObjectStore) -> None:
    check_target(PLACE)
    at = put_on_hub(run, finished(), PLACE)
    commits = hub.model("me/tuned").commits
    assert at == f"hf://me/tuned@{hub.model('me/tuned').branches['main']}"
    assert commits[at.partition("@")[2]] == FILES
    asked, made = len(hub.asked), len(commits)
    assert put_on_hub(run, finished(), PLACE) == at
    assert len(hub.asked) == asked, "the Hub is not even asked"
    put_on_hub(run, finished(seed=1), PLACE)
    assert len(commits) == made + 1, "another model at the same place is another commit"


@pytest.mark.usefixtures("writer")
def test_another_branch_is_another_place(hub: Hub, run: ObjectStore) -> None:
    hub.model("me/tuned", {}).commit({}, branch="next")
    put_on_hub(run, finished(), PLACE)
    branch = PublishSpec(to="hf://me/tuned@next")
    check_target(branch)
    put_on_hub(run, finished(), branch)
    repository = hub.model("me/tuned")
    assert repository.commits[repository.branches["next"]] == repository.commits[repository.branches["main"]] == FILES


def test_what_the_hub_will_not_take_is_told_before_the_training(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match=r"^spec\.publish\.to: hf://me/tuned@main: found no token"):
        check_target(PLACE)
    assert hub.asked == []
    hub.model("me/tuned", {}).token = "hf_writer"
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    with pytest.raises(RefusedError, match=r"^spec\.publish\.to: hf://me/tuned@main: found HTTP 40[13]"):
        check_target(PLACE)


@pytest.mark.usefixtures("writer")
def test_a_hub_that_is_away_costs_the_commit_and_not_the_model(hub: Hub, run: ObjectStore) -> None:
    hub.faults = [status(503, "/commit/")]
    with pytest.raises(UnreachableError, match=r"The model is finished and stays"):
        put_on_hub(run, finished(), PLACE)
    hub.faults = []
    assert put_on_hub(run, finished(), PLACE).startswith("hf://me/tuned@")
