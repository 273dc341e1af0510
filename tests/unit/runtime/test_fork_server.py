"""Processes that are forked from one that has loaded their modules: to who asked they are like any other child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kindling_runtime.fork_server import ForkServer, Process

PROGRAM = """
import ctypes, os, pathlib, signal, sys, time

LOADED = os.getpid()

def main(arguments):
    what, file = arguments
    if what == "tell":
        loaded_by_another = LOADED != os.getpid()
        told = [os.environ["WHO"], str(loaded_by_another), str(os.getppid()), open("/proc/self/comm").read().strip()]
        pathlib.Path(file).write_text(" ".join([*told, sys.stdin.read()]))
        return 0
    if what == "dumpable":
        return ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
    if what == "raise":
        raise ValueError("no")
    if what == "exit":
        sys.exit(7)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pathlib.Path(file).write_text("")
    time.sleep(60)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ForkServer:
    (tmp_path / "sample_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return ForkServer("sample_program")


def wait_for(file: Path) -> None:
    until = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < until, f"{file.name} does not come"
        time.sleep(0.01)


def start(server: ForkServer, file: Path, what: str) -> Process:
    return server.start("rank-3", [what, str(file)], {**os.environ, "WHO": "me"})


def test_a_process_is_a_child_of_who_asked_with_its_name_environment_and_no_input(
    server: ForkServer, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    assert start(server, file, "tell").wait() == 0
    assert file.read_text() == f"me True {os.getpid()} rank-3 "


def test_exit_codes_and_signals_are_told_as_of_any_child(server: ForkServer, tmp_path: Path) -> None:
    assert [start(server, tmp_path / "file", what).wait() for what in ("raise", "exit")] == [1, 7]
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)):
        file = tmp_path / number.name
        process = start(server, file, "sleep")
        wait_for(file)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait() == code


def test_a_hidden_server_and_what_it_forks_cannot_be_read_by_others_of_the_user(
    server: ForkServer, tmp_path: Path
) -> None:
    hidden = ForkServer("sample_program", hidden=True)
    assert [start(each, tmp_path / "file", "dumpable").wait() for each in (server, hidden)] == [1, 0]


def test_a_process_may_be_ended_before_it_was_forked_and_the_next_one_starts(
    server: ForkServer, tmp_path: Path
) -> None:
    process = start(server, tmp_path / "file", "sleep")
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM
    assert start(server, tmp_path / "file", "tell").wait() == 0


def test_a_program_that_cannot_be_loaded_ends_all_that_was_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    server = ForkServer("no_such_program")
    assert [process.wait() for process in [server.start(name, [], os.environ) for name in "ab"]] == [1, 1]
    assert "No module named 'no_such_program'" in capfd.readouterr().err


@pytest.mark.parametrize("ending", ["killed", "terminated with its group"])
def test_what_was_forked_ends_with_who_asked_and_gets_the_signals_of_the_group(
    server: ForkServer, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / "file"
    asks = (
        "import os, sys; from kindling_runtime.fork_server import ForkServer\n"
        f"process = ForkServer('sample_program').start('one', ['sleep', {str(file)!r}], os.environ)\n"
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "while process.poll() is None: pass\n"
        "sys.exit(process.poll())"
    )
    asking = subprocess.Popen([sys.executable, "-c", asks], start_new_session=True)
    wait_for(file)
    if ending == "killed":
        asking.kill()
        asking.wait()
    else:
        os.killpg(asking.pid, signal.SIGTERM)
        assert asking.wait() == 143, "the fork server stays, and the process that was forked answers"
    until = time.monotonic() + 60
    while b"sample_program" in subprocess.run(["pgrep", "-g", str(asking.pid), "-a"], capture_output=True).stdout:
        assert time.monotonic() < until, "none outlives who asked"
        time.sleep(0.05)
