"""A function of an installation's own modules judges; it gets at neither keys, network, files nor other processes."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kindling_api.base import canonical_json
from kindling_api.errors import SpecError, UserError
from kindling_api.v1alpha1.alignment_method import Reward
from kindling_api.v1alpha1.runfile import read_run_file
from kindling_trainer.align.rewards.confinement import call_filter, clean_environment, ruleset
from kindling_trainer.align.rewards.function import Answer, RewardProcess
from kindling_trainer.align.rewards.rewards import RewardSet
from kindling_trainer.chat.message import Message

CALLABLES = (Path(__file__).parents[4] / "contract" / "callables.txt").read_text().split()
KEY = "the-key-of-the-store"
ANSWER = Answer((Message("user", "?"),), "a", {}, "line 1")


@pytest.mark.parametrize("allowed", [[], ["rewards"]], ids=["none is allowed", "one is allowed"])
@pytest.mark.parametrize("path", CALLABLES)
def test_a_module_that_is_not_allowed_is_refused_before_anything_is_started(path: str, allowed: list[str]) -> None:
    reward = Reward.model_validate({"function": {"importPath": path}})
    with pytest.raises(SpecError, match=rf"^rewards\[0\]\.function: found {path}; allowed: "):
        RewardSet([reward], allowed=allowed)


PROBES = """
import ctypes, os, pathlib, socket, subprocess, sys

def environment(record):
    return KEY in str(dict(os.environ)) or any(name.startswith("AWS_") for name in os.environ)

def own_environment(record):
    return KEY in pathlib.Path("/proc/self/environ").read_text()

def environment_of_the_run(record):
    return KEY in pathlib.Path(f"/proc/{os.getppid()}/environ").read_text()

def memory_of_the_run(record):
    open(f"/proc/{os.getppid()}/mem", "rb")
    return True

def descriptors_of_the_run(record):
    return bool(os.readlink(f"/proc/{os.getppid()}/fd/0"))

def secret(record):
    return KEY in pathlib.Path(record["secret"]).read_text()

def secret_by_a_program(record):
    return KEY in subprocess.run(["cat", record["secret"]], capture_output=True, text=True).stdout

def secret_by_a_link(record):
    os.symlink(record["secret"], "link")
    return KEY in pathlib.Path("link").read_text()

def write_beside(record):
    return pathlib.Path(record["secret"]).with_name("new").write_text("x")

def internet(record):
    socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    return True

def datagrams(record):
    socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    return True

def local_sockets(record):
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    return True

def socket_of_a_program(record):
    code = "import socket; socket.socket()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

def io_uring(record):
    return ctypes.CDLL(None).syscall(425, 1, ctypes.create_string_buffer(120)) >= 0

def trace_of_the_run(record):
    return ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0

def work(record):  # what it may do
    pathlib.Path("notes").write_text("x")
    import json.tool, math
    return subprocess.run(["true"]).returncode == 0 and math.pi > 3 and b"" == open(os.devnull, "rb").read()

def score(prompts, answers, records):
    return [float(attempt(answer, record)) for answer, record in zip(answers, records)]

def attempt(name, record):
    try:
        return bool(globals()[name](record))
    except (OSError, RuntimeError):
        return False
"""

NETWORK = ["internet", "datagrams", "local_sockets", "socket_of_a_program", "io_uring", "trace_of_the_run"]
FILES = [
    *("environment_of_the_run", "memory_of_the_run", "descriptors_of_the_run", "secret", "secret_by_a_program"),
    *("secret_by_a_link", "write_beside"),
]


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file like that of a mounted Secret, and the same key in the environment."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("SOME_OTHER_TOKEN", KEY)
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "secrets" / "AWS_SECRET_ACCESS_KEY"
    path.write_text(KEY)
    return path


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the module `ours`, where Python finds it."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.chdir(tmp_path)  # where a function is not confined, it writes there

    def write(text: str) -> None:
        (folder / "ours.py").write_text(text)

    return write


@contextmanager
def judging(function: str, *allowed: str) -> Iterator[RewardProcess]:
    judge = RewardProcess(function, field="field", timeout=60, allowed=allowed)
    try:
        yield judge
    finally:
        judge.close()


def test_a_function_gets_at_nothing_that_the_run_has(
    module: Callable[[str], None], secret: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module(f"KEY = {KEY!r}\n{PROBES}")
    probes = ["environment", "own_environment", *NETWORK, *FILES, "work"]
    answers = [Answer((Message("user", "?"),), name, {"secret": str(secret)}, name) for name in probes]
    with judging("ours:score", "ours") as judge, caplog.at_level("INFO"):
        got = dict(zip(probes, judge(answers), strict=True))
    (told, *_) = [record.getMessage() for record in caplog.records if "kept from" in record.getMessage()]
    told = told.partition("kept from: ")[2]
    lacking = [*([] if "network" in told else NETWORK), *([] if "files" in told else FILES)]
    assert {name for name, done in got.items() if done} <= {"work", *lacking}
    assert got["work"]
    if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64"):
        assert "network" in told  # every kernel that runs pods has seccomp


def test_without_a_list_it_is_the_users_own_code_and_gets_at_all(module: Callable[[str], None], secret: Path) -> None:
    module(f"KEY = {KEY!r}\n{PROBES}")
    own = ["environment", "own_environment", "secret", "secret_by_a_program", "write_beside", "internet", "work"]
    judge = RewardProcess("ours:score", field="field", timeout=60)
    answers = [Answer((Message("user", "?"),), name, {"secret": str(secret)}, name) for name in own]
    assert judge(answers) == [1.0] * len(own)
    judge.close()


SEARCH = """
import os, socket

def score(prompts, answers, records):
    for number in [int(name) for name in safely(os.listdir, "/proc") if name.isdigit()] + [os.getppid(), 1]:
        if "KEY" in str(safely(lambda: open(f"/proc/{number}/environ").read())):
            raise ValueError("found the key")
    if safely(lambda: [socket.socket()]) or "AWS_SECRET_ACCESS_KEY" in os.environ:
        raise ValueError("found something")
    return [float(len(answer)) for answer in answers]

def safely(function, *arguments):
    try:
        return function(*arguments)
    except OSError:
        return []
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "code", "said"),
    [
        ("ours:score", 0, "2 steps on"),
        ("ours:os", 2, "which is defined in no module; allowed: a function that is defined in ours"),
        ("pty:spawn", 2, "spec.method.grpo.rewards[0].function: found pty:spawn; allowed: a function that is defined"),
    ],
)
def test_a_whole_run_keeps_its_key_to_itself(
    alignment_file: Callable[..., Path],
    module: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    code: int,
    said: str,
) -> None:
    module(SEARCH.replace('"KEY"', repr(KEY)))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    rewards = [{"function": {"importPath": path}}, {"format": {"pattern": ".*"}}]
    method = {"grpo": {"groupSize": 2, "rollout": {"prompts": 2, "maxNewTokens": 4}, "rewards": rewards}}
    training = {"steps": 2, "batch": {"microBatch": 4}}
    file = alignment_file(method=method, training=training, records=[{"prompt": f"say {n}"} for n in range(40)])
    run = read_run_file(file)
    file.write_bytes(canonical_json({**run.document(), "rewardModules": ["ours"]}))
    command = [sys.executable, "-m", "kindling_trainer", str(file), "--progress", str(file.with_suffix(".progress"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_what_it_wrote_is_gone_with_it(module: Callable[[str], None]) -> None:
    module("import os\n\ndef score(prompts, answers, records):\n    raise ValueError(os.getcwd())\n")
    with judging("ours:score", "ours") as judge, pytest.raises(UserError) as told:
        judge([ANSWER])
    folder = str(told.value).partition("ValueError: ")[2].partition(",")[0]
    assert "kindling-function-" in folder
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("text", "name", "home"),
    [
        ("from os import system", "system", "posix"),
        ("import subprocess\nrun = subprocess.run", "run", "subprocess"),
        ("import subprocess", "subprocess", "no module"),
        ("from pty import spawn as score", "score", "pty"),
        ("import functools, os\nscore = functools.partial(os.system)", "score", "functools"),
        ("import functools, pty\n@functools.wraps(pty.spawn)\ndef score(*all): pty.spawn(*all)", "score", "pty"),
        ("import subprocess\nscore = subprocess.Popen", "score", "subprocess"),
        ("import random\nscore = random.Random().choices", "score", "random"),
        ("score = eval", "score", "builtins"),
        ("import ours_too\nscore = ours_too.score", "score", "ours_too"),
    ],
)
def test_an_allowed_module_gives_nobody_elses_function_away(
    module: Callable[[str], None], tmp_path: Path, text: str, name: str, home: str
) -> None:
    module(text)
    (tmp_path / "modules" / "ours_too.py").write_text("def score(*all): return 1")
    with judging(f"ours:{name}", "ours") as judge, pytest.raises(UserError) as refused:
        judge([ANSWER])
    assert f"which is defined in {home}" in str(refused.value)
    assert "allowed: a function that is defined in ours" in str(refused.value)


def test_a_module_in_the_current_folder_is_not_the_installations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ours.py").write_text("def score(prompts, answers, records): return [1.0 for _ in answers]\n")
    monkeypatch.chdir(tmp_path)
    path = os.environ.get("PYTHONPATH", "")
    with monkeypatch.context() as here, judging("ours:score", "ours") as judge:
        here.setenv("PYTHONPATH", os.pathsep.join(["", ".", path]))
        with pytest.raises(UserError, match="No module named 'ours'"):
            judge([ANSWER])
    monkeypatch.setenv("PYTHONSAFEPATH", "1")  # as `kindling run` does, on one's own machine
    (tmp_path / "json.py").write_text("raise ValueError('not the library')")
    judge = RewardProcess("ours:score", field="field", timeout=60)
    assert judge([ANSWER]) == [1.0]
    judge.close()


def test_a_module_that_is_not_allowed_is_not_even_imported(module: Callable[[str], None], tmp_path: Path) -> None:
    module(f"open({str(tmp_path / 'imported')!r}, 'w')\ndef score(*all): return 1")
    with pytest.raises(SpecError):
        RewardProcess("ours:score", field="field", timeout=60, allowed=["our"])
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "k", "HF_TOKEN": "k", "KUBECONFIG": "k", "LD_PRELOAD": "k", "PYTHONSTARTUP": "k"},
            {},
        ),
        ({"PATH": "/bin", "TZ": "UTC", "HOME": "/root"}, {"PATH": "/bin", "TZ": "UTC"}),
        ({"PYTHONPATH": ":/opt/kindling:.:here:/opt/more"}, {"PYTHONPATH": "/opt/kindling:/opt/more"}),
    ],
)
def test_an_environment_is_what_is_known_to_be_harmless(given: dict[str, str], kept: dict[str, str]) -> None:
    assert clean_environment(given, "/tmp/own") == {**kept, "HOME": "/tmp/own", "TMPDIR": "/tmp/own"}


@pytest.mark.parametrize("version", range(1, 9))
def test_each_version_of_landlock_is_asked_for_what_it_knows(version: int) -> None:
    files, *more = struct.unpack(f"={len(ruleset(version)) // 8}Q", ruleset(version))
    assert files.bit_length() == {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)
    assert more == [3, 3][: 0 if version < 4 else 1 if version < 6 else 2]


@pytest.mark.parametrize(
    ("machine", "processor", "call", "allowed"),
    [
        ("x86_64", 0xC000003E, 0, True),  # read
        ("x86_64", 0xC000003E, 41, False),  # socket
        ("x86_64", 0xC000003E, 53, True),  # socketpair
        ("x86_64", 0xC000003E, 101, False),  # ptrace
        ("x86_64", 0xC000003E, 310, False),  # process_vm_readv
        ("x86_64", 0xC000003E, 425, False),  # io_uring_setup
        ("x86_64", 0xC000003E, 438, False),  # pidfd_getfd
        ("x86_64", 0xC000003E, 439, True),  # the last one of the table is not the last one that there is
        ("x86_64", 0xC000003E, 0x40000000 + 41, False),  # socket, by x32
        ("x86_64", 0x40000003, 359, False),  # socket, by a 32-bit program
        ("aarch64", 0xC00000B7, 41, True),  # pivot_root, which needs privileges
        ("aarch64", 0xC00000B7, 198, False),  # socket
        ("aarch64", 0xC00000B7, 199, True),  # socketpair
        ("aarch64", 0x40000028, 281, False),  # socket, by a 32-bit program
    ],
)
def test_the_filter_refuses_the_calls_of_its_table(machine: str, processor: int, call: int, allowed: bool) -> None:
    program = call_filter(machine)
    assert program is not None
    assert run(program, {0: call, 4: processor}) == (0x7FFF0000 if allowed else 0x00050001)


def test_a_processor_without_a_table_has_no_filter() -> None:
    assert call_filter("riscv64") is None


def run(program: bytes, seen: dict[int, int]) -> int:
    """What the kernel would answer: a filter interpreted, with the four instructions that it has."""
    steps, at, value = list(struct.iter_unpack("=HBBI", program)), 0, 0
    while True:
        code, yes, no, operand = steps[at]
        at += 1
        match code:
            case 0x20:
                value = seen[operand]
            case 0x15:
                at += yes if value == operand else no
            case 0x35:
                at += yes if value >= operand else no
            case _:
                return int(operand)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has it")
@pytest.mark.parametrize(("modules", "dumpable"), [(None, 1), ([], 0), (["ours"], 0)])
def test_a_run_hides_its_memory_where_functions_are_confined(modules: list[str] | None, dumpable: int) -> None:
    code = (
        "import ctypes, json, sys, types; "
        "from kindling_trainer.align.rewards.confinement import hide_from_functions as hide; "
        "hide(types.SimpleNamespace(reward_modules=json.loads(sys.argv[1]))); "
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(modules)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(dumpable)
