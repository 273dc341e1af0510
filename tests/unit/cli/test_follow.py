"""`kindling inspect RUN --follow`: rows as they come, until the run ends, from a real process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kindling_api.base import digest_of
from kindling_api.errors import SpecError
from kindling_api.v1alpha1.products import ModelManifest
from kindling_cli.commands.follow import Curves, follow_run, row_line
from kindling_storage import ObjectStore, open_store
from kindling_storage.lock import LOCK, lock

FOLDER = "models/" + "a" * 16
SHAPE = {"architecture": "llama", "layers": 1, "heads": 2, "kv_heads": 2, "width": 16, "ffn_width": 32, "context": 32}
FOLLOW = [sys.executable, "-m", "kindling_cli.main", "inspect", "first", "--follow"]


def step(number: int) -> dict[str, float]:
    return {"step": number, "loss": 5 - number / 10, "lr": 0.001, "tokens_per_second": 38_400.0, "time": 1e9}


def write(run: ObjectStore, *rows: dict[str, object] | dict[str, float]) -> None:
    run.put("metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The folder of the training `first`, which has begun."""
    monkeypatch.chdir(tmp_path)
    store = open_store(f"file://{tmp_path}/kindling-store").child(FOLDER)
    store.put("origin.json", b'{"madeBy": "PretrainRun/default/first"}')
    write(store, *(step(number) for number in (1, 2, 3)))
    return store


@pytest.fixture
def finish(run: ObjectStore) -> Callable[[], ModelManifest]:
    """Makes the model exist."""

    def finish() -> ModelManifest:
        digest = digest_of(b"")
        manifest = ModelManifest.model_validate(
            dict(key=digest, files=[], spec={}, dataset=digest, dataset_uri="file:///d", shape=SHAPE, tokenizer=digest)
            | dict(vocab_size=257, steps=5, tokens=5, validation_loss=4.25)
        )
        run.put("manifest.json", manifest.to_bytes())
        return manifest

    return finish


@contextmanager
def following(*options: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([*FOLLOW, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip() for _ in range(count)]


def test_rows_are_shown_as_they_come_and_the_end_with_them(run: ObjectStore, finish: Callable[[], object]) -> None:
    with lock(run, LOCK), following("--limit", "2") as process:
        assert [line.split(" ", 1)[1] for line in lines(process, 2)] == [row_line(step(2)), row_line(step(3))]
        write(run, *(step(number) for number in (1, 2, 3, 4)))
        assert lines(process, 1)[0].endswith("step 4 · loss 4.600 · learning rate 0.001 · 38.4 K tokens/s")
        write(run, *(step(number) for number in (1, 2, 3, 4)), {"step": 4, "validation_loss": 4.25, "final": True})
        assert lines(process, 1)[0].endswith("step 4 · evaluation at the end · validation loss 4.25")
        finish()
        assert process.poll() is None  # the folder is still held
        os.unlink(run.local_path(LOCK) or "")
        assert lines(process, 1)[0][8:].startswith(" finished: 5 steps, validation loss 4.250, digest sha256:")
        assert process.wait(10) == 0


def test_ctrl_c_leaves_without_a_word(run: ObjectStore) -> None:
    with lock(run, LOCK), following() as process:
        lines(process, 3)
        process.send_signal(signal.SIGINT)
        said, complained = process.communicate(timeout=10)
    assert (said, complained, process.returncode) == ("", "", 130)


def test_a_run_that_was_stopped_is_told_and_is_no_success(run: ObjectStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert follow_run("PretrainRun/first", store="kindling-store", limit=20, as_json=False) == 1
    assert capsys.readouterr().out.splitlines()[-1][8:] == (
        f" stopped after 3 steps, and not finished: `kindling run` goes on; kindling-store/{FOLDER}"
    )


def test_as_json_it_is_a_line_for_each_row_and_one_for_the_end(
    run: ObjectStore, finish: Callable[[], ModelManifest], capsys: pytest.CaptureFixture[str]
) -> None:
    digest = finish().digest
    assert follow_run(f"kindling-store/{FOLDER}", store="kindling-store", limit=2, as_json=True) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said == [step(2), step(3), {"state": "finished", "step": 5, "digest": digest}]


def test_rows_that_a_resumed_run_writes_again_are_new(run: ObjectStore) -> None:
    curves = Curves(run)
    assert curves.new() == [step(1), step(2), step(3)]
    assert curves.new() == []
    write(run, step(1))  # cut to the checkpoint
    assert curves.new() == []
    write(run, step(1), step(2))
    assert curves.new() == [step(2)]


def test_of_several_runs_of_a_name_the_one_under_way_is_followed(
    run: ObjectStore, capsys: pytest.CaptureFixture[str]
) -> None:
    older = open_store(run.uri.replace("a" * 16, "b" * 16))
    older.put("origin.json", b'{"madeBy": "PretrainRun/default/first"}')
    write(older, step(9))
    with lock(older, LOCK):
        time.sleep(0.01)
        write(run, step(7))
        with following("--json") as process:
            assert json.loads(lines(process, 1)[0]) == step(9)


@pytest.mark.parametrize("what", ["second", "DatasetBuild/texts", "texts", "kindling-store"])
def test_what_is_no_training_is_refused(run: ObjectStore, what: str) -> None:
    build = open_store(run.uri.replace("models", "datasets"))
    build.put("origin.json", b'{"madeBy": "DatasetBuild/default/texts"}')
    with pytest.raises(SpecError, match=r"allowed: .*(PretrainRun|AlignmentRun)"):
        follow_run(what, store="kindling-store", limit=20, as_json=False)
