"""A build as a pod runs it: progress over HTTP, the last word alone in the file, nothing writable but /tmp."""

from __future__ import annotations

import importlib
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest

from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress

PROJECT = Path(__file__).parents[3]
"""It may lie in /tmp, of which the pod has its own."""


def command(file: DatasetBuildFile, folder: Path, port: int) -> list[str]:
    """The command of the pod's container; the run file and the last word are in `folder`."""
    (folder / "run.json").write_text(json.dumps(file.document()))
    word = folder / "termination-log"
    word.touch()
    options = [str(folder / "run.json"), "--progress", str(word), "--serve", str(port), "--log=json"]
    return [sys.executable, "-m", "kindling_dataprep", *options]


@pytest.mark.slow
def test_progress_is_served_and_the_file_gets_the_last_word(corpus: Path, tmp_path: Path, new_run) -> None:
    port = _free_port()
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command(new_run(corpus), tmp_path, port), stderr=log)
    served: list[Progress] = []
    figures = ""
    try:
        while process.poll() is None:
            with suppress(OSError):
                served.append(Progress.model_validate_json(_get(port, "/progress")))
                figures = _get(port, "/metrics") if served[-1].dataset else figures
            assert (tmp_path / "termination-log").read_bytes()[:1] in (b"", b"{")
            time.sleep(0.02)
    finally:
        process.kill()
    assert process.returncode == 0
    assert any(progress.dataset for progress in served)
    assert 'kindling_dataset_percent{kind="DatasetBuild",namespace="default",name="test",attempt="1"}' in figures
    word = (tmp_path / "termination-log").read_bytes()
    assert len(word) <= 4096
    assert Progress.model_validate_json(word).state == "Succeeded"
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {(line["run"], line["attempt"]) for line in lines} == {("DatasetBuild/default/test", 1)}
    assert {"reading", "deduplicating", "tokenizer", "encoding", "writing"} <= {line.get("stage") for line in lines}
    assert {"done", "tasks", "documents", "bytes"} <= lines[0].keys()
    assert lines[-1]["message"] == Progress.model_validate_json(word).message


@pytest.mark.parametrize("module", ["kindling_dataprep.__main__", "kindling_dataprep.executors.submit"])
@pytest.mark.parametrize("told", [("--uid", "another"), ("--key", "sha256:" + 64 * "0")], ids=["document", "work"])
def test_the_run_file_of_another_is_refused_and_nobody_is_blamed(
    module: str, told: tuple[str, str], corpus: Path, tmp_path: Path, new_run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kindling_runtime.exit.signal.signal", lambda number, handler: None)  # this process's own
    _, _, _, *options = command(new_run(corpus), tmp_path, 0)
    assert importlib.import_module(module).main([*options, *told]) == 1
    word = Progress.model_validate_json((tmp_path / "termination-log").read_bytes())
    assert word.failure is not None and word.failure.reason == "WrongRunFile"
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="taking the file system away takes root")
def test_ray_runs_in_a_pod_without_privileges_on_a_read_only_root(tmp_path: Path, new_run) -> None:
    pod = tmp_path / "pod"
    pod.mkdir()
    seen = Path("/srv")  # where the pod sees its folder: tmp_path itself is hidden by the pod's own /tmp
    (pod / "corpus").mkdir()
    for module in Path(sysconfig.get_path("stdlib")).glob("*.py"):
        (pod / "corpus" / module.name).write_bytes(module.read_bytes())
    file = new_run(seen / "corpus", store="file:///srv/store", engine={"workers": 2})
    words = [word.replace(str(pod), str(seen)) for word in command(file, pod, _free_port())]
    script = f"""
        mount --make-rprivate /
        mount --bind {pod} {seen}
        mount --bind {PROJECT} /mnt
        mount -t tmpfs -o size=256m tmpfs /tmp
        mkdir -p {PROJECT}
        mount --bind /mnt {PROJECT}
        mount -t tmpfs -o size=160m tmpfs /dev/shm
        mount -o remount,bind,ro /
        exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
    """
    environment = {"PATH": os.environ["PATH"], "HOME": "/tmp"}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-ec", script, "sh", *words],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert Progress.model_validate_json((pod / "termination-log").read_bytes()).state == "Succeeded"


def _get(port: int, path: str) -> str:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
