"""What a user meets who gives `kindling run` something wrong: exit code, message, and finished work that stays."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kindling_storage import open_store
from kindling_storage.lock import lock

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DOCUMENTS = """\
apiVersion: kindling.dev/v1alpha1
kind: DatasetBuild
metadata: {name: words}
spec:
  sources: [{uri: text.txt}]
  tokenizer: {byte: {}}
  validation: {tail: 0.1}
---
apiVersion: kindling.dev/v1alpha1
kind: PretrainRun
metadata: {name: tiny}
spec:
  dataset: {name: words}
  model: {architecture: llama, layers: 1, heads: 2, width: 16, context: 8}
  training: {steps: 4, batch: {tokens: 32}, compile: never}
  checkpoint: {every: 2, keep: 2}
"""
TEXT = "\n".join(f"Line {number} is followed by line {number + 1}." for number in range(60))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with documents, a text, and the store of a run that has ended well; and a copy of it."""
    folder, copy = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("finished")
    (folder / "text.txt").write_text(TEXT)
    (folder / "run.yaml").write_text(DOCUMENTS)
    code, error = kindling_run(folder)
    assert code == 0, error
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    return folder, copy


@pytest.fixture
def folder(finished: tuple[Path, Path]) -> Iterator[Path]:
    """That folder as it was; whatever a test does there must leave what was finished."""
    folder, copy = finished
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    yield folder
    manifests = list(copy.glob("store/*/*/manifest.json"))
    assert len(manifests) == 2
    for manifest in manifests:
        entries = json.loads(manifest.read_text())["files"]
        for path in [manifest, *(manifest.parent / entry["path"] for entry in entries)]:
            assert (folder / path.relative_to(copy)).read_bytes() == path.read_bytes()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def kindling_run(folder: Path, *options: str, documents: str = "run.yaml", store: str = "store") -> tuple[int, str]:
    """Exit code and stderr of `kindling run`, as a user in `folder` would start it."""
    command = [sys.executable, "-P", "-m", "kindling_cli.main", "run", documents, "--store", store, *options]
    env = {**os.environ, "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        pytest.param(
            "tokenizer:",
            "tokeniser:",
            "run.yaml:6: spec.tokeniser: found an unknown field; allowed: activeDeadline, badRecords, decontaminate, "
            "deduplicate, engine, filters, huggingFace, image, podTemplate, priority, queue, retention, …. "
            "To fix it: did you mean `tokenizer`? If not, remove it.",
            id="a misspelt field",
        ),
        pytest.param(
            "layers: 1",
            "layers: one",
            'run.yaml:14: spec.model.layers: found "one"; allowed: a whole number from 1 to 1024. '
            "To fix it: change it to what is allowed.",
            id="a wrong type",
        ),
        pytest.param(
            "heads: 2",
            "heads: 3",
            "run.yaml:14: spec.model.width: found 16; allowed: a multiple of heads = 3. To fix it: use 15.",
            id="sizes that do not divide",
        ),
        pytest.param(
            "tokens: 32",
            "tokens: 36",
            "run.yaml:15: spec.training.batch.tokens: found 36; allowed: a multiple of the context, 8. To fix it: "
            "use 32.",
            id="a batch of no whole sequences",
        ),
        pytest.param(
            "checkpoint:",
            "parallelism: {tensor: 2}\n  checkpoint:",
            "run.yaml:16: spec.parallelism: found tensor 2 × pipeline 1 × context 1 × data 1 × replicas 1 = 2; "
            "allowed: "
            "resources.nodes × resources.processesPerNode = 1. "
            "To fix it: change the degrees, or nodes and processesPerNode, until the two products agree.",
            id="an impossible layout",
        ),
        pytest.param(
            "dataset: {name: words}",
            "dataset: {name: wordz}",
            "run.yaml:13: PretrainRun/tiny: "
            "spec.dataset.name: found wordz; allowed: the name of a DatasetBuild that is "
            "given, too (words). "
            "To fix it: did you mean `words`?",
            id="a reference to nothing",
        ),
        pytest.param(
            "kind: PretrainRun",
            "kind: PretrainRum",
            'run.yaml:10: kind: found "PretrainRum"; allowed: one of DatasetBuild, PretrainRun, AlignmentRun. '
            "To fix it: did you mean `PretrainRun`?",
            id="an unknown kind",
        ),
        pytest.param(
            "  tokenizer",
            "\ttokenizer",
            "run.yaml:6: found character '\\t' that cannot start any token; allowed: YAML. "
            "To fix it: indent with spaces: YAML does not allow tabs.",
            id="a tab",
        ),
    ],
)
def test_a_wrong_document_is_refused_before_anything_starts(folder: Path, right: str, wrong: str, message: str) -> None:
    (folder / "run.yaml").write_text(DOCUMENTS.replace(right, wrong))
    before = sorted(folder.rglob("*"))
    assert kindling_run(folder) == (2, f"error: {message}")
    assert sorted(folder.rglob("*")) == before


def test_a_document_that_is_not_there_is_refused(folder: Path) -> None:
    message = (
        "error: runn.yaml: found nothing there; allowed: a file or a folder that exists. "
        "To fix it: did you mean `run.yaml`?"
    )
    assert kindling_run(folder, documents="runn.yaml") == (2, message)


RECORDS = b'{"text": "a first record"}\n{"text": "torn\n{"body": "no text"}\n{"text": 5}\n'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param(
            "missing.txt",
            None,
            "run.yaml:5: DatasetBuild/words: "
            "spec.sources[0].uri: found nothing at '{folder}/missing.txt'; allowed: a file, a folder with files in "
            "it, or a glob "
            "that fits some. To fix it: correct the path.",
            id="a missing file",
        ),
        pytest.param(
            "new.txt",
            b"",
            "run.yaml:5: DatasetBuild/words: "
            "spec.sources: found new.txt, with 0 bytes; allowed: at least one file with "
            "text. To fix it: give sources that hold text.",
            id="an empty file",
        ),
        pytest.param(
            "new.bin",
            b"text",
            "run.yaml:5: DatasetBuild/words: "
            "spec.sources[0].uri: found 'new.bin'; allowed: a suffix that tells the format: .txt, .md, .py, .c and "
            "other text "
            "and code, .jsonl, .parquet, .warc, .wet; or a format. "
            "To fix it: set spec.sources[0].format to text, code, jsonl, parquet, csv, html, warc or wet, or leave the "
            "file out.",
            id="an unknown suffix",
        ),
        pytest.param(
            "new.txt",
            bytes(range(256)) * 40,
            "DatasetBuild/words: "
            "spec.badRecords.maxFraction: found 1 unreadable records out of 1 (0/new.txt#1 (no text)), and 10,240 of "
            "10,240 bytes could not be read (new.txt: no text (10,240 bytes from byte 0 on)); allowed: 0.01 of them. "
            "To fix it: repair the inputs (the ledger in {ledger} has each of them), or raise the fraction.",
            id="binary garbage",
        ),
        pytest.param(
            "new.txt",
            bytes(range(128, 256)) * 40,
            "DatasetBuild/words: "
            "spec.badRecords.maxFraction: found 1 unreadable records out of 1 (0/new.txt#1 (neither UTF-8 nor another "
            "encoding that is recognised; iconv(1) converts it)), and 5,120 of 5,120 bytes could not be read "
            "(new.txt: neither UTF-8 nor another encoding that is recognised; iconv(1) converts it (5,120 bytes from "
            "byte 0 on)); allowed: 0.01 of them. "
            "To fix it: repair the inputs (the ledger in {ledger} has each of them), or raise the fraction.",
            id="no encoding",
        ),
        pytest.param(
            "new.jsonl",
            RECORDS,
            "DatasetBuild/words: "
            "spec.badRecords.maxFraction: found 3 unreadable records out of 4 (0/new.jsonl#2 (no JSON), "
            "0/new.jsonl#3 (no string in 'text'; its fields: body), 0/new.jsonl#4 (no string in 'text'; its fields: "
            "text)), and 15 of 74 bytes could not be read "
            "(new.jsonl: no JSON (15 bytes from byte 27 on)); allowed: 0.01 of them. "
            "To fix it: name the right field in textField, "
            "repair the inputs (the ledger in {ledger} has each of them), or raise the fraction.",
            id="bad lines and missing fields",
        ),
        pytest.param(
            "new.parquet",
            b"PAR1 and no more",
            "DatasetBuild/words: "
            "spec.badRecords.maxFraction: found 1 unreadable records out of 1 (0/new.parquet#1 (the file is damaged "
            "here)), and 16 of 16 bytes could not be read (new.parquet: Parquet magic bytes not found in footer. "
            "Either the file is corrupted or this is (16 bytes from byte 0 on)); allowed: 0.01 of them. "
            "To fix it: repair the inputs (the ledger in {ledger} has each of them), or raise the fraction.",
            id="a torn Parquet file",
        ),
    ],
)
def test_a_source_without_text_is_refused(folder: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (folder / name).write_bytes(content)
    ledgers = set(folder.glob("store/datasets/*/removed"))
    code, error = kindling_run(folder, "--set", f"words:spec.sources[0].uri={name}")
    (ledger,) = set(folder.glob("store/datasets/*/removed")) - ledgers or {None}
    assert (code, error) == (2, f"error: {message.format(folder=folder, ledger=ledger)}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            ["tiny:spec.model.context=4096", "tiny:spec.training.batch.tokens=4096"],
            "run.yaml:13: PretrainRun/tiny: "
            "spec.dataset: found 1710 training tokens; allowed: at least one window of spec.model.context + 1 = 4097 "
            "tokens. "
            "To fix it: add sources, remove fewer documents, or use a smaller spec.model.context.",
            id="a dataset below a context",
        ),
        pytest.param(
            ["words:spec.tokenizer={char: {}}", "tiny:spec.initialize.from.uri=base"],
            "PretrainRun/tiny: "
            "spec.initialize.from: file://{folder}/base: found a tokenizer with 257 tokens; allowed: the tokenizer of "
            "the run's dataset, one with 25. "
            "To fix it: build the dataset with tokenizer.from that model, or start from random weights.",
            id="another tokenizer",
        ),
        pytest.param(
            ["tiny:spec.model.width=32", "tiny:spec.initialize.from.uri=base"],
            "PretrainRun/tiny: "
            "spec.model.width: found 32; allowed: 16, as in the model to start from, file://{folder}/base. "
            "To fix it: use that model's sizes, or start from another model.",
            id="other sizes",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(folder: Path, options: list[str], message: str) -> None:
    (model,) = folder.glob("store/models/*/model")
    (folder / "base").symlink_to(model)
    code, error = kindling_run(folder, *(part for option in options for part in ("--set", option)))
    assert (code, error) == (2, f"error: {message.format(folder=folder)}")


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_with_the_same_model(folder: Path) -> None:
    (model,) = folder.glob("store/models/*")
    (model / "manifest.json").unlink()
    (newest,) = model.glob("checkpoints/step-00000004-*")
    for part in newest.glob("*.safetensors"):
        part.write_bytes(part.read_bytes()[:100])
    assert kindling_run(folder) == (0, "")
    (log,) = folder.glob("store/logs/PretrainRun-*")
    assert "checkpoint step-00000004-a1 is passed over: part-00000.safetensors has 100 bytes, not 1" in log.read_text()
    assert "continues from checkpoint step-00000002-a1" in log.read_text()


def test_a_full_disk_leaves_what_was_finished_and_the_run_goes_on_with_more_room(folder: Path, disk: Path) -> None:
    shutil.copytree(folder / "store", disk / "store")
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - 64 * 2**10))
    again = ("--only", "PretrainRun/tiny", "--set", "tiny:spec.training.seed=2")
    code, error = kindling_run(folder, *again, store=str(disk / "store"))
    assert code == 2
    assert error.startswith("error: PretrainRun/tiny: ")
    assert "no space left on device" in error
    assert len(list(disk.glob("store/*/*/manifest.json"))) == 2
    (disk / "filler").unlink()
    assert kindling_run(folder, *again, store=str(disk / "store")) == (0, "")


def test_two_runs_at_one_place_are_refused(folder: Path) -> None:
    (model,) = folder.glob("store/models/*")
    manifest = (model / "manifest.json").read_bytes()
    (model / "manifest.json").unlink()
    with lock(open_store(model.as_uri()), "lock"):
        code, error = kindling_run(folder)
    (model / "manifest.json").write_bytes(manifest)
    assert code == 2
    assert error.startswith(f"error: PretrainRun/tiny: {model.as_uri()}: found held by process {os.getpid()} on ")
    assert error.endswith(
        "; allowed: one writer at a time. "
        "To fix it: wait until that run has ended, or stop it; what it finished is kept."
    )


def test_a_manifest_that_was_edited_is_not_believed_and_its_product_made_again(folder: Path) -> None:
    (manifest,) = folder.glob("store/datasets/*/manifest.json")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole.replace(b'"kind"', b'"kin"'))
    assert kindling_run(folder) == (0, "")
    assert manifest.read_bytes() == whole


def test_a_store_that_cannot_be_written_is_refused(folder: Path) -> None:
    message = (
        "error: store: found text.txt, where nothing can be written (not a directory); allowed: a folder of yours, "
        "or a "
        "place where one can be made. To fix it: choose another --store."
    )
    assert kindling_run(folder, store="text.txt") == (2, message)
