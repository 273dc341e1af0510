"""What a process gives up before it runs code that may not have all that the run has: network, files, other processes.

Only what any process may do to itself, for a pod has no privileges: a clean environment, a seccomp filter, Landlock.
A kernel or a container runtime may lack one of the last two. Then the others hold, and the caller is told; what that
leaves open is in docs/security.md. Linux alone has them.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Literal

from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_runtime.prctl import hide

Held = Literal["network", "files"]
WHAT_IS_HELD: tuple[Held, ...] = ("network", "files")
"""What a confined process is kept from: opening sockets and looking into other processes; files but those allowed."""

KEPT_VARIABLES = (
    *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)
"""All that a confined process gets of the environment: what is known to be harmless, for a secret may have any name."""

ALWAYS_READABLE = (
    *("/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types"),
    *("/dev/urandom", "/dev/random", "/dev/zero", "/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu"),
)
"""Beside Python and its packages: programs, libraries, and what there is of cores and memory."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38  # linux/prctl.h

# linux/landlock.h, the same numbers on every processor
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_VERSION, _BENEATH_A_PATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_FOLDER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""How many rights over files there are, by version; each is a bit."""

# linux/seccomp.h, linux/filter.h, and the system calls by processor
_FILTER, _ALLOW, _REFUSE = 2, 0x7FFF0000, 0x00050000 | 1  # with EPERM
_LOAD, _IS_EQUAL, _IS_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER, _PROCESSOR = 0, 4  # offsets in what a filter sees
_X32 = 0x40000000
"""Numbers from here on are x86-64's second set of the same calls; no other processor has so many."""
_CALLS = {  # socket, ptrace, process_vm_readv, process_vm_writev, io_uring_setup (which opens sockets too), pidfd_getfd
    "x86_64": (0xC000003E, (41, 101, 310, 311, 425, 438)),
    "aarch64": (0xC00000B7, (198, 117, 270, 271, 425, 438)),
}


def clean_environment(environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """What a confined process gets of `environment`; its home and its temporary files are in `folder`.

    Relative parts of PYTHONPATH are left out: they name whatever lies where the process happens to be.
    """
    kept = {name: environment[name] for name in KEPT_VARIABLES if name in environment}
    if "PYTHONPATH" in kept:
        kept["PYTHONPATH"] = os.pathsep.join(filter(os.path.isabs, kept["PYTHONPATH"].split(os.pathsep)))
    return {**kept, "HOME": folder, "TMPDIR": folder}


def hide_from_functions(run: AlignmentRunFile) -> None:
    """Keep memory and environment of this process from others of the same user, as the functions that are confined.

    It lasts until another program is executed, so that each process of the run has to ask for itself.
    """
    if is_hidden_from_functions(run):
        hide()


def is_hidden_from_functions(run: AlignmentRunFile) -> bool:
    """Whether the functions of the run are confined, and may not see what its processes hold."""
    return run.reward_modules is not None


def confine(readable: Iterable[str], folder: str) -> list[Held]:
    """Give up for good what this process, and what it starts, will not need. Call it while there is one thread.

    Args:
        readable: files and folders that may be read, and run; and `ALWAYS_READABLE`.
        folder: where it may write, too.

    Returns:
        What it is kept from now, which is less than all where the kernel does not know how.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform != "linux":
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return []
    held: list[Held] = []
    if _restrict_files(libc, [*ALWAYS_READABLE, *readable], folder):
        held.append("files")
    if _filter_calls(libc):
        held.append("network")
    return held


def _restrict_files(libc: ctypes.CDLL, readable: Iterable[str], folder: str) -> bool:
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_VERSION)
    if version < 1:
        return False
    wanted = ruleset(version)
    rules = libc.syscall(_CREATE_RULESET, wanted, ctypes.c_size_t(len(wanted)), 0)
    if rules < 0:
        return False
    try:
        everything = (1 << _rights(version)) - 1
        for path in readable:
            _allow(libc, rules, path, _EXECUTE | _READ_FILE | _READ_FOLDER)
        _allow(libc, rules, "/dev/null", everything & _OF_FILES)
        _allow(libc, rules, folder, everything)
        return bool(libc.syscall(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)


def ruleset(version: int) -> bytes:
    """`struct landlock_ruleset_attr`: all that this version of Landlock can refuse.

    That is every right over files, TCP (4), and signals and abstract sockets of processes that are not confined (6).
    """
    parts = [(1 << _rights(version)) - 1]
    if version >= 4:
        parts.append(0b11)
    if version >= 6:
        parts.append(0b11)
    return struct.pack(f"={len(parts)}Q", *parts)


def _rights(version: int) -> int:
    return _RIGHTS[min(version, max(_RIGHTS))]


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    with suppress(OSError):  # what is not there need not be allowed
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rights = rights if os.path.isdir(path) else rights & _OF_FILES
            libc.syscall(_ADD_RULE, rules, _BENEATH_A_PATH, struct.pack("=Qi", rights, place), 0)
        finally:
            os.close(place)


def _filter_calls(libc: ctypes.CDLL) -> bool:
    program = call_filter(platform.machine())
    if program is None:
        return False
    text = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: the number of instructions, and where they are
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(text))
    return bool(libc.prctl(_PR_SET_SECCOMP, _FILTER, header, 0, 0) == 0)


def call_filter(machine: str) -> bytes | None:
    """A program for the kernel: of the calls of this processor, all but those in the table; None for one that is not.

    Calls by another processor's numbers, as those of 32-bit programs are, are refused altogether.
    """
    if machine not in _CALLS:
        return None
    processor, calls = _CALLS[machine]
    refuse = len(calls) + 5  # the last instruction
    steps: list[tuple[int, int, int, int]] = [(_LOAD, 0, 0, _PROCESSOR), (_IS_EQUAL, 0, refuse - 2, processor)]
    steps += [(_LOAD, 0, 0, _NUMBER), (_IS_AT_LEAST, refuse - 4, 0, _X32)]
    steps += [(_IS_EQUAL, refuse - 5 - number, 0, call) for number, call in enumerate(calls)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", code, yes, no, operand) for code, yes, no, operand in steps)
