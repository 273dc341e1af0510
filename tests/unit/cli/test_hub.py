"""Models and data of the Hugging Face Hub, from `kindling plan` to a model that was made of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import Hub, status
from tokenizers import Tokenizer, models, pre_tokenizers

from kindling_api.errors import NotFoundError, RefusedError, SpecError, UnreachableError
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_cli.commands.push import push_model
from kindling_cli.load import load_documents
from kindling_cli.product_folders import MODELS, find
from kindling_cli.revisions import pin_revisions
from kindling_storage import open_store
from kindling_storage.hub import errors, repository

Write = Callable[..., Path]

DOCUMENTS = """
apiVersion: kindling.dev/v1alpha1
kind: AlignmentRun
metadata: {name: tuned}
spec:
  base: {uri: hf://me/tiny}
  method: {sft: {}}
  data: [{uri: "hf://datasets/me/talks/*.json"}]
  training: {steps: 2, batch: {tokens: 256}, compile: never}
  publish: {to: hf://me/tuned}
---
apiVersion: kindling.dev/v1alpha1
kind: DatasetBuild
metadata: {name: texts}
spec:
  sources: [{uri: "hf://datasets/me/texts@main/data/*.jsonl"}]
  tokenizer: {from: {uri: hf://me/tiny, endOfDocument: <|end|>}}
  filters: []
  deduplicate: {exact: false}
"""
TALK = {"messages": [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello to you."}]}


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "WAITS", ())
    repository._commit.cache_clear()
    repository._files.cache_clear()


def commits_of(file: Path) -> tuple[str, str]:
    (document, *_) = pin_revisions(load_documents([file]))
    assert isinstance(document, AlignmentRun) and document.spec.base.uri
    return document.spec.base.uri, document.spec.data[0].uri


def test_every_revision_becomes_the_commit_that_it_is_now(hub: Hub, write: Write) -> None:
    base, talks = hub.model("me/tiny", {"a": b""}), hub.data("me/talks", {"a": b""})
    hub.data("me/texts", {"a": b""})
    model, data = base.branches["main"], talks.branches["main"]
    assert commits_of(write(DOCUMENTS)) == (f"hf://me/tiny@{model}", f"hf://datasets/me/talks@{data}/*.json")
    pinned = DOCUMENTS.replace("hf://me/tiny}", f"hf://me/tiny@{model}}}", 1)
    hub.model("me/tiny", {"a": b"moved"})
    repository._commit.cache_clear()
    assert commits_of(write(pinned))[0] == f"hf://me/tiny@{model}"
    assert commits_of(write(DOCUMENTS))[0] == f"hf://me/tiny@{base.branches['main']}" != f"hf://me/tiny@{model}"


def test_what_the_hub_has_not_is_told_with_its_field(hub: Hub, write: Write) -> None:
    with pytest.raises(NotFoundError, match=r"^AlignmentRun/tuned: spec.base.uri: hf://me/tiny@main: found no model"):
        pin_revisions(load_documents([write(DOCUMENTS)]))
    hub.model("me/tiny", {"a": b""})
    hub.faults.append(status(503, "/api/datasets/"))
    with pytest.raises(UnreachableError, match=r"^AlignmentRun/tuned: spec.data\[0\].uri: hf://.*found HTTP 503"):
        pin_revisions(load_documents([write(DOCUMENTS)]))


def test_a_model_of_the_hub_is_found_by_its_uri(hub: Hub) -> None:
    commit = hub.model("me/tiny", {"config.json": b"{}"}).branches["main"]
    place = find("hf://me/tiny", "store", MODELS)
    assert place.shown == f"hf://me/tiny@{commit}" and place.store.get("config.json") == b"{}"


def test_a_model_is_pushed_whole_and_is_read_back(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    write_tiny(tmp_path / "hf-tiny")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.model("me/tiny", {"README.md": b"mine"}).token = "hf_secret"
    push_model(str(tmp_path / "hf-tiny"), "hf://me/tiny", store=str(tmp_path), private=False)
    commit = hub.model("me/tiny").branches["main"]
    assert f"is at hf://me/tiny@{commit}." in capsys.readouterr().out
    files = {path.name: path.read_bytes() for path in (tmp_path / "hf-tiny").iterdir()}
    assert hub.model("me/tiny").commits[commit] == files | {"README.md": b"mine"}
    assert len(hub.model("me/tiny").commits) == 2, "one commit, however many files"
    store = open_store("hf://me/tiny")
    assert {path: store.get(path) for path in files} == files


def test_a_push_that_fails_changes_nothing(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    write_tiny(tmp_path / "hf-tiny")
    hub.model("me/tiny", {}).token = "hf_secret"
    for token, fault, kind in (
        ("hf_wrong", None, RefusedError),
        ("hf_secret", status(503, "/commit/"), UnreachableError),
    ):
        monkeypatch.setenv("HF_TOKEN", token)
        hub.faults = [fault] if fault else []
        with pytest.raises(kind, match="hf://me/tiny@main: found HTTP"):
            push_model(str(tmp_path / "hf-tiny"), "hf://me/tiny", store=str(tmp_path), private=False)
    assert len(hub.model("me/tiny").commits) == 1


@pytest.mark.parametrize(
    "target", ["./folder", "hf://me", "hf://datasets/me/x", "hf://me/x/file", "hf://me/x@" + 40 * "0"]
)
def test_a_model_is_pushed_to_a_models_place_alone(target: str) -> None:
    with pytest.raises(SpecError, match=r"TARGET: found .*; allowed: hf://owner/name"):
        push_model("model", target, store="store", private=False)


@pytest.fixture
def full_hub(hub: Hub, tmp_path: Path) -> Hub:
    """A Hub with a model, dialogues and texts."""
    write_tiny(tmp_path / "hf-tiny")
    hub.model("me/tiny", {path.name: path.read_bytes() for path in (tmp_path / "hf-tiny").iterdir()})
    hub.data("me/talks", {"train.json": json.dumps([TALK] * 40).encode(), "README.md": b"About it."})
    lines = "".join(json.dumps({"text": f"Text {number} is told.\n" * 9}) + "\n" for number in range(60)).encode()
    hub.data("me/texts", {"data/a.jsonl": lines, "dataset_infos.json": b"{}"})
    return hub


def write_tiny(folder: Path) -> None:
    """A model of a few thousand weights, as transformers writes it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE({c: n for n, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|end|>"])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=128, eos_token_id=256, bos_token_id=256,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def kindling(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "kindling_cli.main", *arguments]
    env = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=500)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_model_is_made_of_what_the_hub_has_and_says_of_which_commit(
    full_hub: Hub, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, hub = write(DOCUMENTS), full_hub
    run = kindling(file.parent, "run", str(file), "--store", "store")
    assert run.returncode == 2, run.stderr
    assert "AlignmentRun/tuned: spec.publish.to: found no token" in run.stderr and "me/tuned" not in str(hub.asked)
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    run = kindling(file.parent, "run", str(file), "--store", "store")
    assert run.returncode == 0, run.stderr
    tuned = hub.model("me/tuned").branches["main"]
    assert f"at the Hub hf://me/tuned@{tuned}" in run.stdout
    (folder,) = file.parent.glob("store/models/*/model")
    assert hub.model("me/tuned").commits[tuned] == {path.name: path.read_bytes() for path in folder.iterdir()}
    (model,) = [json.loads(path.read_text()) for path in file.parent.glob("store/models/*/manifest.json")]
    talks = hub.data("me/talks").branches["main"]
    assert model["baseUri"] == f"hf://me/tiny@{hub.model('me/tiny').branches['main']}"
    assert [entry["path"] for entry in model["inputs"]] == [f"hf://datasets/me/talks@{talks}/train.json"]
    (texts,) = [json.loads(path.read_text()) for path in file.parent.glob("store/datasets/*/manifest.json")]
    assert texts["spec"]["sources"][0]["uri"].startswith("hf://datasets/me/texts@") and texts["documents"]["kept"] == 60

    plan = kindling(file.parent, "plan", str(file), "--store", "store")
    assert plan.stdout.count("finished") == 2, plan.stdout + plan.stderr
    said = kindling(file.parent, "generate", "hf://me/tiny", "--prompt", "Hi", "--max-tokens", "3")
    assert said.returncode == 0 and said.stdout.startswith("Hi"), said.stderr

    hub.model("me/tiny", hub.model("me/tiny").commits[hub.model("me/tiny").branches["main"]] | {"NEWS.md": b"moved"})
    plan = kindling(file.parent, "plan", str(file), "--store", "store")
    assert plan.stdout.count("finished") == 0, plan.stdout + plan.stderr
