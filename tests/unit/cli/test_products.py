"""`inspect`, `generate`, `chat` and `export` over a store with a real dataset and a small untrained model."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM, AutoTokenizer

from kindling_api.base import key_of
from kindling_api.errors import IntegrityError, SpecError
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import DatasetManifest, ModelManifest
from kindling_cli.commands.chat import State, apply_command, converse
from kindling_cli.commands.export import export_adapters, export_gguf, export_model
from kindling_cli.commands.generate import generate_text
from kindling_cli.commands.inspect import inspect_product
from kindling_cli.commands.plan import plan_files
from kindling_cli.commands.run import run_files
from kindling_cli.product_folders import find, storage_of
from kindling_storage import open_store
from kindling_storage.commit import commit, put_file, read_manifest
from kindling_storage.names import Published, publish
from kindling_trainer.checkpoint.huggingface import export
from kindling_trainer.inference.sampling import GenerationOptions
from kindling_trainer.models import build_model
from kindling_trainer.models.initialize import initialize

SHAPE = ModelShape(architecture="llama", layers=1, heads=2, kv_heads=2, width=16, ffn_width=32, context=32)
STORY = "The fire was small, and it had to be fed with care; first the dry grass, then twigs, then a branch or two. "


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the dataset `words` and the model `words` of it."""
    folder = tmp_path_factory.mktemp("products")
    for name, text in [("a", STORY * 4), ("b", STORY * 4), ("c", "Another tale. " * 9), ("d", "A last one. " * 9)]:
        (folder / f"{name}.txt").write_text(text)
    file = folder / "words.yaml"
    file.write_text(
        "apiVersion: kindling.dev/v1alpha1\nkind: DatasetBuild\nmetadata: {name: words}\n"
        "spec: {sources: [{uri: '*.txt'}], tokenizer: {byte: {}}, validation: {fraction: 0.1}}\n"
    )
    store = folder / "store"
    run_files([file], store=str(store), only=(), overrides=(), prompt="", verbose=False)
    _add_model(store)
    return store


def _add_model(folder: Path) -> None:
    whole = open_store(f"file://{folder}")
    product = json.loads(whole.get("names/DatasetBuild/default/words.json"))
    dataset = read_manifest(open_store(product["uri"]), DatasetManifest)
    assert dataset is not None
    model = build_model(SHAPE, 257)
    initialize(model, 1)
    place = whole.child("models/0123456789abcdef")
    files = export(
        place.child("model"),
        ((name, parameter.detach()) for name, parameter in model.named_parameters()),
        SHAPE,
        vocab_size=257,
        tokenizer=open_store(product["uri"]).get("tokenizer.json"),
        end_of_document=256,
    )
    manifest = ModelManifest(
        key=key_of("a model"),
        files=[entry.model_copy(update={"path": f"model/{entry.path}"}) for entry in files],
        spec={},
        dataset=dataset.digest,
        dataset_uri=product["uri"],
        tokenizer=dataset.tokenizer.digest,
        shape=SHAPE,
        vocab_size=257,
        steps=7,
        tokens=448,
        validation_loss=5.5,
    )
    digest = commit(place, manifest)
    publish(whole, "PretrainRun", "default", "words", Published(uri=place.uri, digest=digest, key=manifest.key))


@pytest.fixture
def inspect(store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    monkeypatch.setenv("COLUMNS", "160")

    def inspect(what: str, **options: object) -> str:
        defaults = dict(kept=False, removed=False, rule=None, shard=None, document=0, limit=20, verify=False)
        inspect_product(what, store=str(store), **{**defaults, **options})
        return capsys.readouterr().out

    return inspect


def planned(folder: Path, capsys: pytest.CaptureFixture[str]) -> bool:
    """Whether a plan says that the dataset of a folder is finished."""
    capsys.readouterr()
    plan_files([folder / "words.yaml"], store=f"{folder}/store", overrides=(), flops_per_second=1.0, as_json=True)
    return "finished" in json.loads(capsys.readouterr().out)[0]


@pytest.mark.parametrize(
    ("name", "text"), [("e", "A new tale."), ("a", "The fire was large" + STORY[18:] + STORY * 3), ("d", None)]
)
def test_a_dataset_is_planned_as_finished_while_its_sources_are_what_it_was_built_from(
    name: str, text: str | None, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(store.parent, tmp_path / "moved" / store.parent.name)
    file, names = folder / f"{name}.txt", folder / "store/names/DatasetBuild/default/words.json"
    names.write_text(names.read_text().replace(str(store), f"{folder}/store"))
    assert planned(folder, capsys)
    before = file.read_bytes() if file.exists() else None
    file.unlink() if text is None else file.write_text(text)
    assert not planned(folder, capsys)
    file.unlink(missing_ok=True) if before is None else file.write_bytes(before)
    assert planned(folder, capsys)


def test_a_name_means_the_model_and_its_lineage_leads_to_the_inputs(inspect: Callable[..., str]) -> None:
    said = inspect("words")
    assert "llama, 1 layer, width 16, 2 heads" in said
    assert "7 steps, 448 tokens" in said
    model, dataset, inputs = said.partition("Lineage\n")[2].splitlines()[:3]
    assert model.startswith("  model  sha256:")
    assert dataset.startswith("  ← dataset  sha256:")
    assert inputs.startswith("  ← inputs   4 files")
    assert "  a.txt" in said


def test_a_dataset_shows_what_was_read_removed_and_kept(inspect: Callable[..., str]) -> None:
    said = inspect("DatasetBuild/words")
    assert "byte, vocabulary 257" in said
    funnel = [line.replace("━", "").split() for line in said.partition("Documents\n")[2].splitlines()[:3]]
    assert funnel == [["read", "4"], ["−", "exact", "1"], ["kept", "3"]]


def test_removed_documents_name_the_one_that_stayed(inspect: Callable[..., str]) -> None:
    said = inspect("words", removed=True)
    assert "0/b.txt#1" in said
    assert "= 0/a.txt#1" in said
    assert "1 of 1 removed documents." in said
    assert inspect("words", rule="exact") == said.replace("documents.", "documents by exact.")


def test_kept_documents_are_listed_up_to_the_limit(inspect: Callable[..., str]) -> None:
    assert "2 of 3 kept documents." in inspect("words", kept=True, limit=2)


def test_a_shard_is_decoded(inspect: Callable[..., str]) -> None:
    said = inspect("words", shard="train-00000", document=0)
    assert "train-00000, document 0 of " in said
    assert "<|endoftext|>" in said
    assert any(text in said for text in ("The fire was small", "Another tale.", "A last one."))


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        (
            "words",
            {"rule": "pii"},
            "--rule: found 'pii'; allowed: exact. To fix it: name a rule that removed something.",
        ),
        (
            "words",
            {"shard": "train-9"},
            "--shard: found 'train-9'; allowed: train-00000, validation-00000. To fix it: name one of these shards.",
        ),
        (
            "words",
            {"shard": "train-00000", "document": 99},
            "--document: found 99; allowed: 0 to 1, the documents of train-00000. "
            "To fix it: use a number in this range.",
        ),
        (
            "PretrainRun/words",
            {"removed": True},
            "'PretrainRun/words': found a Model; allowed: a dataset for --kept, --removed, --rule and --shard. "
            "To fix it: name a dataset.",
        ),
    ],
    ids=["no such rule", "no such shard", "no such document", "a model has no ledger"],
)
def test_what_is_not_there_is_refused(
    inspect: Callable[..., str], what: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError) as error:
        inspect(what, **options)
    assert str(error.value) == message


def test_a_name_of_another_kind_is_told_as_such(store: Path) -> None:
    with pytest.raises(SpecError) as error:
        find("words", str(store), ("AlignmentRun",))
    assert str(error.value) == (
        "'words': found PretrainRun/words; allowed: a finished AlignmentRun, of which the store has none. "
        "To fix it: run `kindling run` first, or give --store."
    )


def test_a_name_whose_product_was_deleted_is_refused(store: Path, tmp_path: Path) -> None:
    names = tmp_path / "names" / "PretrainRun" / "default"
    names.mkdir(parents=True)
    shutil.copy(store / "names" / "PretrainRun" / "default" / "words.json", names)
    with pytest.raises(SpecError) as error:
        find("words", str(tmp_path), ("PretrainRun",))
    assert str(error.value) == (
        f"PretrainRun/words: found nothing in {tmp_path}/models/0123456789abcdef, where it was once finished; allowed: "
        "a product that is still in the store. To fix it: run its document again, or copy the folder back."
    )


def test_a_store_that_was_moved_is_whole(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = shutil.copytree(store, tmp_path / "my störe 1%41")
    generate_text("words", "The ", store=str(moved), max_tokens=2)
    assert capsys.readouterr().out.startswith("The ")
    place = find("words", str(moved), ("PretrainRun",))
    assert place.shown == f"{moved}/models/0123456789abcdef"


@pytest.mark.parametrize("text", ["", " ", "ftp://host"])
def test_a_store_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^--store: found .*; allowed: a folder, file://… or s3://bucket/prefix"):
        storage_of(text)


def test_near_names_are_offered(inspect: Callable[..., str], store: Path) -> None:
    with pytest.raises(SpecError) as error:
        inspect("wordz")
    assert str(error.value) == (
        f"'wordz': found neither a folder nor a name in {store}; allowed: PretrainRun/words, DatasetBuild/words. "
        "To fix it: correct the name, or give the store with --store."
    )


def test_verify_finds_a_changed_byte(inspect: Callable[..., str], store: Path) -> None:
    assert "files, " in inspect("DatasetBuild/words", verify=True)
    (shard,) = store.glob("datasets/*/train-00000.bin")
    good = shard.read_bytes()
    shard.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    try:
        with pytest.raises(IntegrityError, match=r"1 of .* files are not as the manifest says\n  .*train-00000\.bin"):
            inspect("DatasetBuild/words", verify=True)
    finally:
        shard.write_bytes(good)


def test_a_folder_that_is_no_product_is_refused(inspect: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"found no manifest\.json; allowed: the folder of a finished dataset"):
        inspect(str(tmp_path))


@pytest.mark.parametrize(
    "what", ["words", "PretrainRun/words", "models/0123456789abcdef", "models/0123456789abcdef/model"]
)
def test_a_model_is_found_by_name_and_by_folder(store: Path, capsys: pytest.CaptureFixture[str], what: str) -> None:
    model = str(store / what) if what.startswith("models") else what
    generate_text(model, "The ", store=str(store), max_tokens=8, seed=1)
    said = capsys.readouterr().out
    assert said.startswith("The ")
    generate_text(f"file://{store}/models/0123456789abcdef", "The ", store="elsewhere", max_tokens=8, seed=1)
    assert capsys.readouterr().out == said


def test_a_continuation_is_json_where_that_is_asked(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate_text("words", "The ", store=str(store), max_tokens=8, seed=1)
    said = capsys.readouterr().out
    generate_text("words", "The ", store=str(store), max_tokens=8, seed=1, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found == {"model": "words", "prompt": "The ", "text": said.removeprefix("The ").removesuffix("\n")}


def test_a_prompt_may_come_from_stdin(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("From a pipe"))
    generate_text("words", "-", store=str(store), max_tokens=1)
    assert capsys.readouterr().out.startswith("From a pipe")


def test_an_option_out_of_bounds_is_refused_before_a_model_is_loaded() -> None:
    with pytest.raises(SpecError, match="top_p: found 2"):
        generate_text("none", "a", store="none", top_p=2.0)


def test_export_gives_what_transformers_loads(store: Path, tmp_path: Path) -> None:
    export_model("words", tmp_path / "new", store=str(store))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new")
    assert sum(parameter.numel() for parameter in model.parameters()) > 0
    assert tokenizer.decode(tokenizer("fire")["input_ids"]) == "fire"
    with torch.no_grad():
        assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 257)


def test_export_rounds_weights_where_that_is_asked(store: Path, tmp_path: Path) -> None:
    export_model("words", tmp_path / "whole", store=str(store))
    export_model("words", tmp_path / "half", store=str(store), dtype="bfloat16")
    whole, half = (AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto") for name in ("whole", "half"))
    assert (whole.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    for one, other in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(one.to(torch.bfloat16), other)


def test_export_gives_one_file_of_a_product_or_of_a_hugging_face_folder(store: Path, tmp_path: Path) -> None:
    export_gguf("words", tmp_path / "gguf", store=str(store), dtype="float16")
    export_model("words", tmp_path / "folder", store=str(store))
    export_gguf(str(tmp_path / "folder"), tmp_path / "again", store=str(store), dtype="float16")
    assert [path.name for path in (tmp_path / "gguf").iterdir()] == ["model.gguf"]
    first, second = (GGUFReader(tmp_path / name / "model.gguf") for name in ("gguf", "again"))
    assert [each.name for each in first.tensors] == [each.name for each in second.tensors]
    assert all((one.data == other.data).all() for one, other in zip(first.tensors, second.tensors, strict=True))
    assert first.fields["general.name"].contents() == "words"
    # llama.cpp reads no byte-level tokenizer without a merge: there is one that no text meets.
    assert first.fields["tokenizer.ggml.merges"].contents() == ["a !"]


def test_export_gives_the_adapters_of_a_run_that_trained_some(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--to peft: found no adapters in .*; allowed: the model of a finished run"):
        export_adapters("words", tmp_path / "none", store=str(store))
    manifest = read_manifest(open_store(f"file://{store}/models/0123456789abcdef"), ModelManifest)
    assert manifest is not None
    place = open_store((tmp_path / "adapted").as_uri())
    paths = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model/config.json"]
    paths += ["model/chat_template.jinja", "model/tokenizer.json"]
    files = [put_file(place, path, path.encode()) for path in sorted(paths)]
    commit(place, manifest.model_copy(update={"files": files}))
    export_adapters(str(tmp_path / "adapted"), tmp_path / "peft", store=str(store))
    names = ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja", "tokenizer.json"]
    assert sorted(path.name for path in (tmp_path / "peft").iterdir()) == names


def test_export_touches_no_folder_that_is_in_use(store: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(SpecError, match="found something there already; allowed: a new or an empty folder"):
        export_model("words", tmp_path, store=str(store))
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_chat_continues_obeys_and_leaves(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("/temperature 0\nOnce\n/quit\nnever read\n"))
    converse("words", store=str(store), max_tokens=4)
    said = capsys.readouterr().out
    assert "words is a base model: it does not answer, it continues what you write" in said
    assert "temperature is 0.0." in said
    assert "Once" in said
    assert "never read" not in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/top-k 40", "top-k is 40."),
        ("/top-k off", "top-k is off."),
        ("/seed 3", "seed is 3."),
        ("/system Answer in rhyme", "system is Answer in rhyme."),
        ("/system off", "system is off."),
        ("/reset", "What was said so far is forgotten."),
        (
            "/temperature x",
            "/temperature: found 'x'; allowed: a number. To fix it: write it after the command, as in /temperature 1.",
        ),
        ("/temperature -1", "temperature: found -1.0; allowed: 0 (greedy), or 0.001 to 100. To fix it: use 0.8."),
        (
            "/seed 2.5",
            "/seed: found '2.5'; allowed: a whole number. To fix it: write it after the command, as in /seed 1.",
        ),
        (
            "/sing",
            "/sing: found an unknown command; allowed: /temperature, /top-k, /top-p, /repetition-penalty, "
            "/max-tokens, /seed, /system, /reset, /help, /quit. To fix it: see /help.",
        ),
    ],
    ids=lambda value: value if len(value) < 18 else "",
)
def test_a_command_changes_the_state_or_says_why_not(line: str, said: str) -> None:
    assert apply_command(line, State(GenerationOptions())).said == said


@pytest.mark.slow
def test_generate_reads_options_from_the_command_line(store: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    command = [sys.executable, "-m", "kindling_cli.main", "generate", "words", "--store", str(store)]
    command += ["--prompt", "The ", "--greedy", "--max-tokens", "4"]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0
    generate_text("words", "The ", store=str(store), temperature=0.0, max_tokens=4)
    assert done.stdout == capsysbinary.readouterr().out != b""
