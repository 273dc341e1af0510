"""The launchers of a run over several machines, which start their training processes again together.

Each set of processes is a generation. The launcher of the first machine leads: it hears from each other one how its
processes of the generation have ended, and says when they are to end, and which generation comes next. Both sides tell
their whole state whenever it changes and whenever they connect, as lines of JSON over TCP, so that a lost connection
costs nothing. Nobody starts a generation before all processes of the one before have ended, everywhere.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

from kindling_api.bounds import LAUNCHER_SETTLE_SECONDS
from kindling_api.v1alpha1.status import Failure
from kindling_runtime.dual_stack import DualStackServer
from kindling_trainer.launch.workers import PeerFailure, WorkersOutcome

LOST_SECONDS = 5.0
"""A machine whose launcher has had no connection for so long is lost."""
KEEP_ALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
"""tcp(7): the other side's kernel is asked after two seconds of silence, and again each second; three times in vain,
and the connection is lost. A machine without power sends nothing that would end it."""
ENDING_SECONDS = LAUNCHER_SETTLE_SECONDS + 10.0
"""How long the processes of other machines may take to end."""
LONGEST_LINE = 1 << 16
RETRY_SECONDS, POLL_SECONDS = 0.5, 0.05

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Order:
    """What the first machine's launcher wants of all."""

    generation: int = 0
    """The newest one, from 0."""
    ended: PeerFailure | None = None
    """Why its processes are to end; None while they are to go on."""
    over: bool = False
    """Whether no other generation follows."""


class Members:
    """The launchers of the other machines, as the first one sees them. Of one machine there are none.

    Args:
        identity: what no other attempt at any run is called.
        others: how many there are.
        port: where they are listened to; None where there are none.
    """

    def __init__(self, identity: str, others: int, port: int | None) -> None:
        self._identity, self._others = identity, others
        self._order, self._changed = Order(), threading.Condition()
        self._states: dict[int, tuple[int, WorkersOutcome | None]] = {}  # generation, and how it ended
        self._connections: dict[int, socket.socket] = {}
        self._lost: dict[int, float] = {}  # since when (monotonic clock)
        self._server = None if port is None else _listen(port, self)

    def close(self) -> None:
        """Let the others go: no other generation follows."""
        self._send_order(Order(self._order.generation, self._order.ended, over=True))
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def ended(self) -> PeerFailure | None:
        """Why the processes of this machine are to end: others failed, or are lost; None while they may go on."""
        with self._changed:
            failures = [outcome for outcome in self._outcomes() if outcome is not None and outcome.failure is not None]
            lost = self._lost_nodes()
        if failures:
            return _peer_failure(failures[0])
        return PeerFailure("killed", f"contact with node {lost[0]} is lost") if lost else None

    def gather(self, own: WorkersOutcome) -> list[WorkersOutcome] | None:
        """How the processes ended everywhere, those of this machine first; None where a machine is gone.

        Those that still run are ended.
        """
        self._send_order(Order(self._order.generation, _peer_failure(own)))
        until = time.monotonic() + ENDING_SECONDS
        with self._changed:
            while None in (outcomes := self._outcomes()) and time.monotonic() < until and not self._lost_nodes():
                self._changed.wait(POLL_SECONDS)
            are_here = len(self._connections) == self._others
        found = [outcome for outcome in outcomes if outcome is not None]
        left = any(outcome.failure is None for outcome in found)  # it did its part, or was asked to stop
        return [own, *found] if len(found) == self._others and are_here and not left else None

    def start_again(self) -> int:
        """Begin the next generation everywhere; returns its number."""
        self._send_order(Order(self._order.generation + 1))
        return self._order.generation

    def _send_order(self, order: Order) -> None:
        with self._changed:
            self._order = order
            for connection in self._connections.values():
                _send(connection, asdict(order))

    def _outcomes(self) -> list[WorkersOutcome | None]:
        """One for each other machine; None for one that has not said how its processes ended."""
        reported = [
            outcome for _, (generation, outcome) in sorted(self._states.items()) if generation == self._order.generation
        ]
        return [*reported, *([None] * (self._others - len(reported)))]

    def _lost_nodes(self) -> list[int]:
        """Those that went before they said how their processes ended."""
        reported = {node for node, (generation, outcome) in self._states.items()
                if generation == self._order.generation and outcome is not None}  # fmt: skip
        long_ago = time.monotonic() - LOST_SECONDS
        return [node for node, since in self._lost.items() if since < long_ago and node not in reported]

    def serve(self, connection: socket.socket, lines: Iterable[bytes]) -> None:
        """Listen to one of the others until its connection ends."""
        node = None
        try:
            for line in lines:
                state = json.loads(line)
                if state["identity"] != self._identity:
                    return
                node = int(state["node"])
                self._heard(node, connection, (state["generation"], _outcome(state["outcome"])))
        finally:
            with self._changed:
                if node is not None and self._connections.get(node) is connection:
                    del self._connections[node]
                    self._lost[node] = time.monotonic()
                    self._changed.notify_all()

    def _heard(self, node: int, connection: socket.socket, state: tuple[int, WorkersOutcome | None]) -> None:
        with self._changed:
            if self._connections.get(node) is not connection:
                self._connections[node] = connection
                self._lost.pop(node, None)
                _send(connection, asdict(self._order))
            self._states[node] = state
            self._changed.notify_all()


class LeaderConnection:
    """The launcher of the first machine, as that of another one sees it.

    Args:
        identity: as `Members` has it.
        node: the number of this machine.
        address: where the first one listens.
    """

    def __init__(self, identity: str, node: int, address: tuple[str, int]) -> None:
        self._identity, self._node, self._address = identity, node, address
        self._state: tuple[int, WorkersOutcome | None] = (0, None)
        self._order: Order | None = None
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        self._lost_since: float | None = None  # never before the first connection
        self._closed = False
        threading.Thread(target=self._listen, name="kindling-leader", daemon=True).start()

    def close(self) -> None:
        """Leave the run."""
        with self._changed:
            self._closed = True
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RDWR)

    def ended(self) -> PeerFailure | None:
        """Why the processes of this machine are to end; None while they may go on."""
        with self._changed:
            order = self._order
            if order is not None and order.generation == self._state[0] and order.ended is not None:
                return order.ended
            return PeerFailure("killed", "contact with node 0 is lost") if self._is_lost() else None

    def report(self, outcome: WorkersOutcome) -> None:
        """How the processes of this machine have ended."""
        self._become(self._state[0], outcome)

    def next_generation(self) -> int | None:
        """The generation that the first machine starts, as soon as it does; None where it starts no other."""
        mine = self._state[0]
        until = time.monotonic() + 2 * ENDING_SECONDS
        with self._changed:
            while time.monotonic() < until and not self._is_lost():
                order = self._order
                if order is not None and order.generation > mine:
                    self._become(order.generation, None)
                    return order.generation
                if order is None or order.over:
                    return None
                self._changed.wait(POLL_SECONDS)
        return None

    def _become(self, generation: int, outcome: WorkersOutcome | None) -> None:
        with self._changed:
            self._state = (generation, outcome)
            if self._connection is not None:
                _send(self._connection, self._whole_state())

    def _is_lost(self) -> bool:
        if self._order is not None and self._order.over:  # it has gone in order
            return False
        return self._lost_since is not None and time.monotonic() - self._lost_since > LOST_SECONDS

    def _whole_state(self) -> dict[str, Any]:
        generation, outcome = self._state
        document = None if outcome is None else _document(outcome)
        return {"identity": self._identity, "node": self._node, "generation": generation, "outcome": document}

    def _listen(self) -> None:
        while not self._closed:
            with suppress(OSError), socket.create_connection(self._address, timeout=LOST_SECONDS) as connection:
                _keep_alive(connection)
                self._hear(connection)
            time.sleep(RETRY_SECONDS)

    def _hear(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        with self._changed:
            self._connection = connection
            _send(connection, self._whole_state())
        for line in connection.makefile("rb"):
            with self._changed:
                self._order, self._lost_since = _read_order(line), None
                self._changed.notify_all()
        with self._changed:
            self._connection = None
            if self._order is not None and self._lost_since is None:
                self._lost_since = time.monotonic()
            self._changed.notify_all()


class _Server(DualStackServer, ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    block_on_close = False
    members: Members


class _Handler(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        _keep_alive(self.request)
        with suppress(OSError, ValueError, KeyError, TypeError):  # whatever else may come to an open port
            self.server.members.serve(self.request, iter(lambda: self.rfile.readline(LONGEST_LINE), b""))


def _listen(port: int, members: Members) -> _Server | None:
    try:
        server = _Server(("", port), _Handler)
    except OSError as error:
        log.warning("port %d cannot be had (%s): the run will not start again in place", port, error.strerror)
        return None
    server.members = members
    threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), name="kindling-members", daemon=True).start()
    return server


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with suppress(OSError):  # it is connected to anew, and hears it then
        connection.sendall(json.dumps(message).encode() + b"\n")


def _peer_failure(outcome: WorkersOutcome) -> PeerFailure:
    assert outcome.failure is not None
    return PeerFailure(outcome.ending, outcome.failure.message)


def _read_order(line: bytes) -> Order:
    order = json.loads(line)
    ended = None if order["ended"] is None else PeerFailure(**order["ended"])
    return Order(order["generation"], ended, order["over"])


def _document(outcome: WorkersOutcome) -> dict[str, Any]:
    failure = None if outcome.failure is None else outcome.failure.document()
    return {"ending": outcome.ending, "failure": failure, "exit_code": outcome.exit_code}


def _outcome(document: dict[str, Any] | None) -> WorkersOutcome | None:
    if document is None:
        return None
    failure = None if document["failure"] is None else Failure.model_validate(document["failure"])
    return WorkersOutcome(document["ending"], failure, document["exit_code"])
