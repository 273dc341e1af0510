"""`kindling run` with stages that only pretend: order, reuse, failures, signals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kindling_api.errors import SpecError, UserError
from kindling_api.v1alpha1.model import ModelShape
from kindling_cli.commands.run import run_files
from kindling_cli.flow import NEEDS, StageError

Text = Callable[..., str]
Write = Callable[..., Path]
Ran = Callable[[], list[str]]


def run(*files: Path, only: tuple[str, ...] = (), sets: tuple[str, ...] = ()) -> int:
    return run_files(files, store="./store", only=only, overrides=sets, prompt=None, verbose=False)


def test_documents_run_in_the_order_in_which_they_need_one_another(
    write: Write, dataset: Text, pretrain: Text, ran: Ran
) -> None:
    assert run(write(pretrain("model", "text"), dataset("text"))) == 0
    assert ran() == ["DatasetBuild/text", "PretrainRun/model"]


def test_a_second_run_says_that_all_is_finished(
    write: Write, dataset: Text, pretrain: Text, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    run(file)
    assert "DatasetBuild/text: finished in 0:0" in capsys.readouterr().out
    run(file)
    said = capsys.readouterr().out
    assert "DatasetBuild/text: already finished · 8 documents read, 7 kept · 12.3 K tokens ·" in said
    assert "PretrainRun/model: already finished · 10 steps · 640 tokens · digest sha256:" in said
    assert "kindling chat model --store ./store" in said


def test_at_the_end_it_shows_what_the_model_says(
    write: Write, dataset: Text, pretrain: Text, ran: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    run(file)
    product = json.loads((tmp_path / "store/names/PretrainRun/default/model.json").read_text())
    sample = {"prompt": "Once", "text": " upon\na time" + " and again" * 9}
    folder = Path(product["uri"].removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 10, "final": True, "samples": [sample]}))
    run(file)
    assert f"  it says Once → upon a time{' and again' * 4} and ag …\n" in capsys.readouterr().out


def test_as_json_it_is_what_was_made_and_progress_is_on_stderr(
    write: Write, dataset: Text, pretrain: Text, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    options = dict(store="./store", only=(), overrides=(), prompt=None, verbose=False)
    assert run_files([file], **options, as_json=True) == 0  # type: ignore[arg-type]
    said = capsys.readouterr()
    build, model = json.loads(said.out)
    assert (build["title"], build["state"], build["documents"]["kept"]) == ("DatasetBuild/text", "done", 7)
    assert (model["steps"], model["remarks"][0][:18]) == (10, "10 optimizer steps")
    assert "PretrainRun/model: finished in 0:0" in said.err


def test_a_judge_runs_before_what_it_judges_and_is_nobody_to_talk_to(
    write: Write, pretrain: Text, dataset: Text, alignment: Text, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = alignment("talk", "model") + "  evaluation: {prompts: [Hello], judge: {name: judge}}\n"
    judge = alignment("judge", "model").replace("sft", "reward").replace("chat.jsonl", "pairs.jsonl")
    assert run(write(talk, judge, pretrain("model", "text"), dataset("text"))) == 0
    assert ran()[2:] == ["AlignmentRun/judge", "AlignmentRun/talk"]
    said = capsys.readouterr().out
    assert "kindling chat talk" in said and "kindling chat judge" not in said


def test_only_takes_what_it_refers_to_from_the_store(write: Write, dataset: Text, pretrain: Text, ran: Ran) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    run(file, only=("text",))
    run(file, only=("PretrainRun/model",))
    assert ran() == ["DatasetBuild/text", "PretrainRun/model"]


def test_only_takes_a_base_of_either_kind_from_the_store(
    write: Write, dataset: Text, pretrain: Text, alignment: Text, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"layers": 1, "heads": 2, "kv_heads": 2, "width": 16, "ffn_width": 16, "context": 16}
    shape = ModelShape.model_validate({"architecture": "llama", **sizes})  # what is pretended has no files
    monkeypatch.setattr("kindling_cli.planner.model_in", lambda store, scored: (shape, 300))
    monkeypatch.setattr("kindling_cli.planner.tokens_in", lambda store, shape: None)
    file = write(dataset("text"), pretrain("model", "text"), alignment("talk", "model"), alignment("more", "talk"))
    run(file, only=("text", "model", "talk"))
    run(file, only=("more",))
    assert ran()[2:] == ["AlignmentRun/talk", "AlignmentRun/more"]


def test_only_says_what_is_not_finished_yet(write: Write, dataset: Text, pretrain: Text, ran: Ran) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    with pytest.raises(SpecError) as error:
        run(file, only=("model",))
    assert str(error.value) == (
        f"{file}:9: PretrainRun/model: found a reference to DatasetBuild/text, which is not finished in store; "
        "allowed: what is finished, or part of this run. To fix it: run DatasetBuild/text first, or leave out --only."
    )
    assert ran() == []


def test_a_file_may_refer_to_what_the_store_has(write: Write, dataset: Text, pretrain: Text, ran: Ran) -> None:
    run(write(dataset("text")))
    run(write(pretrain("model", "text"), name="other.yaml"))
    assert ran() == ["DatasetBuild/text", "PretrainRun/model"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("chat.jsonl", None, "AlignmentRun/chat: spec.data[0].uri: found nothing at "),
        ("chat.jsonl", '{"messages": 5}', "AlignmentRun/chat: "),
        ("text.txt", None, "DatasetBuild/text: spec.sources[0].uri: found nothing at "),
        ("text.txt", "", "DatasetBuild/text: spec.sources: found text.txt, with 0 bytes"),
    ],
)
def test_data_that_the_last_document_would_stop_at_stops_all_before_the_first(
    file: str,
    content: str | None,
    said: str,
    write: Write,
    dataset: Text,
    pretrain: Text,
    alignment: Text,
    ran: Ran,
    tmp_path: Path,
) -> None:
    documents = write(alignment("chat", "model"), dataset("text"), pretrain("model", "text"))
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(UserError) as error:
        run(documents)
    assert re.match(rf"{re.escape(str(documents))}:\d+: {re.escape(said)}", str(error.value))
    assert ran() == [] and not Path("store").exists()


def test_gpus_that_are_not_there_stop_all_before_the_first(
    write: Write, dataset: Text, pretrain: Text, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    file = write(dataset("text"), pretrain("model", "text"))
    with pytest.raises(SpecError) as error:
        run(file, sets=("model:spec.resources={gpu: nvidia.com/gpu, processesPerNode: 4}",))
    assert str(error.value) == (
        f"{file}:12: PretrainRun/model: spec.resources.gpu: found 4 processes, and 0 GPUs on this machine; allowed: at "
        "most one process for each GPU. To fix it: remove gpu to train on the CPU, or lower processesPerNode."
    )
    assert ran() == []


def test_a_model_is_aligned_after_it_is_there(
    write: Write, dataset: Text, pretrain: Text, alignment: Text, ran: Ran
) -> None:
    run(write(alignment("chat", "model"), dataset("text"), pretrain("model", "text")))
    assert ran() == ["DatasetBuild/text", "PretrainRun/model", "AlignmentRun/chat"]


def test_a_stage_whose_packages_are_not_installed_stops_all_before_anything_starts(
    write: Write, dataset: Text, pretrain: Text, ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NEEDS, "PretrainRun", "a_package_that_is_not_there")
    with pytest.raises(ModuleNotFoundError) as error:
        run(write(dataset("text"), pretrain("model", "text")))
    assert error.value.name == "a_package_that_is_not_there"
    assert ran() == []


def test_set_changes_a_field_and_with_it_the_work(
    write: Write, dataset: Text, pretrain: Text, ran: Ran, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(dataset("text"), pretrain("model", "text"))
    run(file)
    capsys.readouterr()
    run(file, sets=("PretrainRun/model:spec.training.steps=20",))
    said = capsys.readouterr().out
    assert "DatasetBuild/text: already finished" in said
    assert "PretrainRun/model: finished in" in said


def test_the_users_mistake_in_a_stage_is_exit_code_2(write: Write, dataset: Text, ran: Ran) -> None:
    with pytest.raises(StageError) as error:
        run(write(dataset("wrong")))
    assert (str(error.value), error.value.exit_code) == ("DatasetBuild/wrong: spec.x: found 1", 2)


def test_a_stage_that_breaks_shows_the_end_of_its_log(write: Write, dataset: Text, ran: Ran) -> None:
    with pytest.raises(StageError) as error:
        run(write(dataset("broken")))
    first, *lines, last = str(error.value).splitlines()
    assert first == "DatasetBuild/broken: the process ended with exit code 1 and no last word"
    assert "  | RuntimeError: a fault of ours" in lines
    log = Path(last.removeprefix("Whole log: "))
    assert "a line of the log" in log.read_text()
    assert error.value.exit_code == 1


def test_a_stage_that_is_killed_is_told_as_such(write: Write, dataset: Text, ran: Ran) -> None:
    with pytest.raises(StageError, match="ended by SIGKILL, as the kernel does when memory runs out"):
        run(write(dataset("killed")))


def test_what_was_finished_before_a_failure_stays(write: Write, dataset: Text, pretrain: Text, ran: Ran) -> None:
    file = write(dataset("text"), pretrain("broken", "text"))
    for _ in range(2):
        with pytest.raises(StageError):
            run(file)
    assert Path("store/names/DatasetBuild/default/text.json").exists()


@pytest.fixture
def started(write: Write, dataset: Text, ran: Ran, tmp_path: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Starts `kindling run` on one document, and returns when its stage is at work."""

    def started(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kindling_cli.main", "run", str(write(dataset(name))), "--store", "store"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 100
        while not (tmp_path / "ran.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return process

    return started


def stage_is_alive(tmp_path: Path) -> bool:
    pid = json.loads((tmp_path / "ran.pid").read_text())
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def test_ctrl_c_lets_the_stage_save_and_says_how_to_go_on(
    started: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = started("slow")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "DatasetBuild/slow: stopping: saving what there is" in output
    assert f"To go on:  kindling run {tmp_path}/run.yaml --store store" in output
    assert "saved" in next((tmp_path / "store/logs").iterdir()).read_text()


@pytest.mark.slow
def test_a_second_ctrl_c_kills(started: Callable[[str], subprocess.Popen[str]], tmp_path: Path) -> None:
    process = started("stubborn")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    process.communicate(timeout=100)
    assert process.returncode == 130
    assert not stage_is_alive(tmp_path)


def test_sigterm_is_a_stop_too(started: Callable[[str], subprocess.Popen[str]]) -> None:
    process = started("slow")
    process.terminate()
    process.communicate(timeout=100)
    assert process.returncode == 143


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_no_stage_outlives_a_command_line_that_was_killed(
    started: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = started("slow")
    process.kill()
    process.communicate(timeout=100)
    deadline = time.monotonic() + 100
    while stage_is_alive(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not stage_is_alive(tmp_path)


def test_a_tracker_that_does_not_answer_is_told_of_before_what_comes_first(
    write: Write, dataset: Text, pretrain: Text, ran: Ran
) -> None:
    watched = pretrain("model", "text") + '  tracking: {mlflow: {url: "http://127.0.0.1:9"}}\n'
    with pytest.raises(SpecError, match=r"PretrainRun/model: spec\.tracking\.mlflow\.url: found http.*, where"):
        run(write(dataset("text"), watched))
    assert ran() == []
