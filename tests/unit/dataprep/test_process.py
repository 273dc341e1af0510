"""`python -m kindling_dataprep` as its caller sees it: exit codes, the last word, signals, kills, a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kindling_api.v1alpha1.products import DatasetManifest
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_dataprep.executors import ENOUGH_FOR_WORKERS
from kindling_storage import open_store
from kindling_storage.commit import read_manifest

RULES = [{"formatting": {}}, {"gopherRepetition": {}}]


def start(file: DatasetBuildFile, folder: Path) -> subprocess.Popen[str]:
    """The process of a build, in a process group of its own."""
    run_file = folder / "run.json"
    run_file.write_text(json.dumps(file.document()))
    command = [sys.executable, "-m", "kindling_dataprep", str(run_file), "--progress", str(folder / "progress.json")]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finish(file: DatasetBuildFile, folder: Path) -> tuple[int, str, Progress]:
    """Exit code, standard error and last word of a build."""
    process = start(file, folder)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors, last_word(folder)


def digest_of(file: DatasetBuildFile, folder: Path) -> str:
    """The digest of the dataset that a build ends with."""
    code, errors, word = finish(file, folder)
    assert code == 0, errors
    assert word.result is not None
    return word.result.digest


def last_word(folder: Path) -> Progress:
    """The progress document."""
    return Progress.model_validate_json((folder / "progress.json").read_bytes())


def wait_for_stage(folder: Path, process: subprocess.Popen[str], stage: str) -> None:
    """Returns when the build has come to a stage."""
    path = folder / "progress.json"
    while not (path.exists() and (progress := last_word(folder)).dataset and progress.dataset.stage == stage):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Just enough for several workers: modules at the top of the standard library."""
    folder, size = tmp_path_factory.mktemp("large"), 0
    for module in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if size < ENOUGH_FOR_WORKERS:
            size += (folder / module.name).write_bytes(module.read_bytes())
    assert size >= ENOUGH_FOR_WORKERS
    return folder


def test_a_build_ends_with_0_and_its_result(corpus: Path, tmp_path: Path, new_run) -> None:
    code, errors, word = finish(new_run(corpus), tmp_path)
    assert (code, word.state) == (0, "Succeeded")
    assert word.result is not None
    manifest = read_manifest(open_store(word.result.uri), DatasetManifest)
    assert manifest is not None
    assert word.result.digest == manifest.digest
    assert "documents kept" in errors


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        pytest.param({}, "spec.sources[0].uri: found nothing at", id="nothing at the source"),
        pytest.param(
            {"store": "file:///proc/nowhere"},
            "/proc/nowhere",
            id="a store that cannot be written",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_users_mistake_ends_with_2_and_one_sentence(
    tmp_path: Path, new_run, fields: dict[str, object], message: str
) -> None:
    source = tmp_path / "here.txt"
    if "store" in fields:
        source.write_text("some text")
    code, errors, word = finish(new_run(source, **fields), tmp_path)
    assert (code, word.state) == (2, "Failed")
    assert word.failure is not None
    assert (word.failure.reason, word.failure.exit_code) == ("UserError", 2)
    assert message in word.failure.message
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_build_quickly_and_it_goes_on_later(
    corpus: Path, tmp_path: Path, new_run, number: int, code: int
) -> None:
    file = new_run(corpus, tokenizer={"train": {"vocabSize": 8000}})
    process = start(file, tmp_path)
    wait_for_stage(tmp_path, process, "tokenizer")
    started = time.monotonic()
    os.kill(process.pid, number)
    process.communicate(timeout=300)
    assert time.monotonic() - started < 5
    assert process.returncode == code
    word = last_word(tmp_path)
    assert word.failure is not None
    assert word.failure.signal == signal.Signals(number).name
    assert finish(file, tmp_path)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.exhaustive)]
)
def test_a_signal_to_the_whole_group_ends_ray_too(large: Path, tmp_path: Path, new_run, number: int, code: int) -> None:
    process = start(new_run(large, engine={"workers": 2}), tmp_path)
    wait_for_stage(tmp_path, process, "reading")
    while not (progress := last_word(tmp_path).dataset) or not progress.documents:
        time.sleep(0.05)
    started = time.monotonic()
    os.killpg(process.pid, number)  # as a terminal's Ctrl-C does
    process.communicate(timeout=300)
    assert time.monotonic() - started < 5, "Ray looks for its server, which got the signal, too, for that long"
    assert process.returncode == code
    assert last_word(tmp_path).failure is not None


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.timeout(1800)
def test_drivers_and_workers_killed_at_random_change_no_byte(tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / "bench/dataprep/kills.py"
    subprocess.run([sys.executable, script, "--kills", "6", "--json", tmp_path / "figures.json"], check=True)
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["sameBytes"] and figures["ledgerAddsUp"]
    assert figures["driversKilled"] + figures["workersKilled"] == 6


@pytest.mark.slow
@pytest.mark.exhaustive
def test_rays_processes_and_folders_do_not_outlive_a_killed_build(
    large: Path, tmp_path: Path, new_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(new_run(large, engine={"workers": 2}), tmp_path)
    wait_for_stage(tmp_path, process, "reading")
    deadline = time.monotonic() + 180
    while not any("raylet" in command for command in _descendants(process.pid)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = set(_family(process.pid))
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    deadline = time.monotonic() + 180  # Ray's agents wait a minute for an answer from its dead server, and then end
    while alive := [number for number in family if Path(f"/proc/{number}").exists() and not _is_zombie(number)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.1)
    assert finish(new_run(large, engine={"workers": 2}), tmp_path)[0] == 0
    assert not Path(f"/tmp/kindling-ray-{process.pid}").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 KiB, less than the work of the small corpus takes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system takes root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_a_users_error_and_the_build_goes_on_with_more_room(
    corpus: Path, tmp_path: Path, new_run, small_disk: Path
) -> None:
    file = new_run(corpus, tokenizer={"byte": {}}, store=small_disk.as_uri())
    code, errors, word = finish(file, tmp_path)
    assert code == 2, errors
    assert word.failure is not None
    assert "full" in word.failure.message or "space" in word.failure.message
    assert not list(small_disk.rglob("manifest.json"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    assert finish(file, tmp_path)[0] == 0


def _descendants(pid: int) -> list[str]:
    return [Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace") for number in _family(pid)[1:]]


def _family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for number in found:
        for path in Path(f"/proc/{number}/task").glob("*/children"):
            found += [int(child) for child in path.read_text().split()]
    return found


def _is_zombie(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
