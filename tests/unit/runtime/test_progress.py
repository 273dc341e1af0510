"""The file in which a process says how far it is."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from kindling_api.bounds import FINAL_PROGRESS_BYTES
from kindling_api.errors import StorageError
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import CheckpointStatus, DatasetProgress, Failure, ModelResult, TrainingProgress
from kindling_runtime.progress import ProgressWriter, final_bytes, with_outage
from kindling_storage.outage import note_outage, note_recovery


def message_in(path: Path) -> str:
    return Progress.model_validate_json(path.read_bytes()).message


def test_progress_is_written_at_most_every_half_second(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    writer = ProgressWriter(path)
    writer.write(Progress(message="first"))
    writer.write(Progress(message="too soon"))
    assert message_in(path) == "first"
    time.sleep(0.55)
    writer.write(Progress(message="later"))
    assert message_in(path) == "later"


def test_what_is_forced_and_the_last_word_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    writer = ProgressWriter(path)
    for message, force, state in (("a", False, "Running"), ("b", True, "Running"), ("c", False, "Succeeded")):
        writer.write(Progress(message=message, state=state), force=force)
        assert message_in(path) == message
    assert [entry.name for entry in tmp_path.iterdir()] == ["progress.json"]


def test_without_a_file_nothing_is_written() -> None:
    ProgressWriter(None).write(Progress(message="to nobody"), force=True)


def test_a_figure_that_is_not_a_number_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "progress.json"
    ProgressWriter(path).write(Progress(training=TrainingProgress(step=3, loss=float("nan"))))
    read = Progress.model_validate_json(path.read_bytes())
    assert (read.training.step, read.training.loss) == (3, None)


def test_a_mounted_file_is_written_in_place(read_only_disk: Path, tmp_path: Path) -> None:
    """As a pod's termination message is: it cannot be renamed over."""
    source, target = tmp_path / "source", tmp_path / "termination-log"
    source.touch()
    target.touch()
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        ProgressWriter(target).write(Progress(message="the last word", state="Succeeded"))
        assert message_in(target) == message_in(source) == "the last word"
        assert {entry.name for entry in tmp_path.iterdir()} == {"source", "termination-log", "readonly"}
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_full_disk_is_reported(small_disk: Path) -> None:
    with pytest.raises(OSError), (small_disk / "filler").open("wb") as filler:
        filler.write(bytes(2 << 20))
    with pytest.raises(StorageError, match=r"no space left on device while writing progress\.json"):
        ProgressWriter(small_disk / "progress.json").write(Progress())


LONG = Progress(
    state="Failed",
    message="é" * 1024,
    dataset=DatasetProgress(stage="reading"),
    checkpoint=CheckpointStatus(step=1, uri="s3://" + "u" * 1000, digest="sha256:" + "0" * 64),
    failure=Failure(reason="UserError", message="ü" * 2048, exit_code=2),
)


@pytest.mark.parametrize(
    "progress",
    [
        LONG,
        LONG.model_copy(update={"message": '"\\' * 500}),
        LONG.model_copy(update={"failure": None, "result": ModelResult(digest="d", uri="u" * 1024, model="m" * 1024)}),
        Progress(state="Succeeded", message="short"),
    ],
    ids=["accents", "quotes", "long addresses", "short"],
)
def test_the_last_word_fits_into_a_termination_message(progress: Progress) -> None:
    data = final_bytes(progress)
    assert len(data) <= FINAL_PROGRESS_BYTES
    read = Progress.model_validate_json(data)
    assert (read.state, read.result) == (progress.state, progress.result)
    assert progress.message.startswith(read.message.removesuffix("…"))
    if progress.failure is not None:
        assert read.failure.exit_code == 2
        assert len(read.failure.message) >= 64


def test_a_termination_message_gets_the_last_word_alone(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"
    writer = ProgressWriter(path, last_word_only=True)
    writer.write(Progress(message="on the way"), force=True)
    assert not path.exists() and writer.latest.message == "on the way"
    writer.write(Progress(message="done", state="Succeeded"))
    assert message_in(path) == writer.latest.message == "done"


def test_a_process_that_waits_for_a_store_says_so() -> None:
    progress = Progress(message="training, step 5 of 20", training=TrainingProgress(step=5))
    last = Progress(state="Failed")
    assert with_outage(progress) == progress
    note_outage("b", "a refusal", "what was met before")
    note_outage("b", "no answer", "waiting for bucket 'b'")
    note_outage("b", "no answer", "this is said already")
    try:
        waiting = with_outage(progress)
        assert (waiting.trouble, waiting.training) == ("StorageUnreachable", progress.training)
        assert waiting.message == "waiting for bucket 'b'; training, step 5 of 20"
        assert with_outage(last) == last
    finally:
        note_recovery("b")
    assert with_outage(progress) == progress


def test_a_short_last_word_is_kept_as_it_is() -> None:
    progress = Progress(state="Succeeded", message="done", training=TrainingProgress(step=5))
    assert Progress.model_validate_json(final_bytes(progress)) == progress
