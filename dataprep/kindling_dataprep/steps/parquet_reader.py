"""A Parquet file, read by another process.

Arrow reads in a process of its own (`parquet_process`), which a damaged file may end; here it costs the row group that
was being read.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, BinaryIO, Self

import pyarrow as pa

from kindling_dataprep.steps.parquet_process import RowGroup, Type, receive, send

PROCESS = "kindling_dataprep.steps.parquet_process"
READER_BYTES = 2 * 2**30
"""Of memory, that may be held of a file while it is read; a row group that needs more cannot be read."""


class DamagedError(OSError):
    """A Parquet file, or a row group of it, cannot be read."""


class ParquetReader:
    """A Parquet file, read by another process; `open` comes first, within a `with` block."""

    schema: pa.Schema
    rows: int
    """Of the file, as its footer tells."""
    groups: list[RowGroup]

    def __init__(self, stream: BinaryIO, size: int, column: str = "") -> None:
        """`column` is the one whose size is wanted, in bytes."""
        self._stream, self._asked = stream, {"size": size, "column": column}
        self._process: _Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        self._leave()

    def open(self) -> None:
        """Read the footer.

        Raises:
            DamagedError: it cannot be read.
            StorageError: as the stream.
        """
        self._leave()
        self._process = process = _Process.take()
        with self._asking(process):
            kind, found = self._ask(process, "open", self._asked)
            assert kind == "opened"
            self.rows, self.groups = found["rows"], [RowGroup(*each) for each in found["groups"]]
            self.schema = pa.ipc.read_schema(pa.py_buffer(process.receive_bytes()))

    def batches(self, group: int, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows of a row group; they need not be read to their end.

        Raises:
            DamagedError: they end here; another row group may be read.
            StorageError: as the stream.
        """
        if self._process is None or self._process.has_ended or not self._process.is_idle:
            self.open()
        process = self._process
        assert process is not None
        with self._asking(process):
            kind, _ = self._ask(process, "group", {"group": group, "columns": columns})
            while kind == "batch":
                with pa.ipc.open_stream(pa.py_buffer(process.receive_bytes())) as reader:
                    yield from reader
                kind, _ = self._answer(process)

    def _leave(self) -> None:
        if self._process is not None:
            self._process.give_back()
            self._process = None

    @contextmanager
    def _asking(self, process: _Process) -> Iterator[None]:
        """A question and its whole answer; one that is left in the middle leaves the process of no use."""
        process.is_idle = False
        try:
            yield
        except _EndedError:
            code, self._process = process.end(), None
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise DamagedError(f"Arrow could not bear it, and ended the process that read it ({how})") from None
        process.is_idle = True

    def _ask(self, process: _Process, kind: Type, argument: Any) -> tuple[Type, Any]:
        process.send(kind, argument)
        return self._answer(process)

    def _answer(self, process: _Process) -> tuple[Type, Any]:
        """What the process says, having got the bytes that it asked for."""
        kind, argument = process.receive()
        while kind == "read":
            offset, length = argument
            self._stream.seek(offset)
            process.send_bytes(self._stream.read(length))
            kind, argument = process.receive()
        if kind == "damaged":
            process.is_idle = True
            raise DamagedError(argument)
        return kind, argument


class _EndedError(Exception):
    """A process that reads has ended."""


class _Process:
    """A running `parquet_process`; it takes a quarter of a second to start, and reads one file after another."""

    _free: list[_Process] = []

    def __init__(self) -> None:
        ours, its = socket.socketpair()
        with its:
            command = [sys.executable, "-P", "-m", PROCESS, str(its.fileno()), str(READER_BYTES)]
            environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"}  # which reserves nothing
            self._popen = subprocess.Popen(
                command, pass_fds=[its.fileno()], env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        self._connection = Connection(ours.detach())
        self._owner = os.getpid()
        self.is_idle = True
        """Whether it waits for a question: not in the middle of an answer."""

    @classmethod
    def take(cls) -> _Process:
        """One that is free, or a new one."""
        with suppress(IndexError):
            while True:
                found = cls._free.pop()
                if found._owner == os.getpid() and found._is_ready():  # this process may be a fork
                    return found
        return cls()

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended."""
        return self._popen.poll() is not None

    def _is_ready(self) -> bool:
        """Whether it answers: memory may have run out meanwhile."""
        try:
            self.send("ready", None)
            return self.receive()[0] == "ready"
        except _EndedError:
            self.end()
            return False

    def give_back(self) -> None:
        """Another file may be read."""
        if self.is_idle:
            self._free.append(self)
        else:
            self.end()

    def send(self, kind: Type, argument: Any) -> None:
        with _noticing_the_end():
            send(self._connection, kind, argument)

    def send_bytes(self, data: bytes) -> None:
        with _noticing_the_end():
            self._connection.send_bytes(data)

    def receive(self) -> tuple[Type, Any]:
        with _noticing_the_end():
            return receive(self._connection)

    def receive_bytes(self) -> bytes:
        with _noticing_the_end():
            return self._connection.recv_bytes()

    def end(self) -> int:
        """End it, and return its exit code."""
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):  # one that has ended already has its own code
            self._popen.wait(0.1)
        self._popen.kill()
        return self._popen.wait()


@contextmanager
def _noticing_the_end() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):  # between two messages, or in the middle of one
        raise _EndedError from None


@atexit.register
def _end_all() -> None:
    for process in _Process._free:
        if process._owner == os.getpid():
            process.end()
