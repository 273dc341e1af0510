"""The launchers of a run over several machines, which start their training processes again together.

Each set of processes is a generation. The launcher of the first machine leads: it hears from each other one how its
processes of the generation have ended, and says when they are to end, and which generation comes next, with whom. Both
sides tell their whole state whenever it changes and whenever they connect, so that a lost connection costs nothing.
Nobody starts a generation before all processes of the one before have ended, everywhere.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from socketserver import StreamRequestHandler, ThreadingTCPServer

from kindling_runtime.dual_stack import DualStackServer
from kindling_trainer.launch import orders
from kindling_trainer.launch.orders import (
    NO_GENERATION,
    LauncherState,
    Order,
    keep_alive,
    node_of,
    read_state,
    send,
    write_order,
)
from kindling_trainer.launch.workers import PeerFailure, WorkersOutcome

LONGEST_LINE = 1 << 16
LEADER = "0:leader"
"""The name of the first machine's launcher."""

log = logging.getLogger(__name__)


class Members:
    """The launchers of the other machines, as the first one sees them. Of one machine there are none.

    Args:
        identity: what no other attempt at any run is called.
        others: how many there are; at most so many, where the run is elastic.
        port: where they are listened to; None where there are none.
        elastic: whether each generation has those that `start` names, rather than all.
    """

    def __init__(self, identity: str, others: int, port: int | None, *, elastic: bool = False) -> None:
        self._identity, self._others, self._elastic = identity, others, elastic
        self._order = Order(NO_GENERATION, ()) if elastic else Order()
        self._changed = threading.Condition()
        self._states: dict[int, LauncherState] = {}
        self._connections: dict[int, socket.socket] = {}
        self._lost: dict[int, float] = {}  # since when (monotonic clock)
        self._joined: dict[str, float] = {}  # when each launcher was first heard (monotonic clock)
        self._server = None if port is None else _listen(port, self)

    def close(self) -> None:
        """Let the others go: no other generation follows."""
        self._send_order(replace(self._order, over=True))
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    @property
    def generation(self) -> int:
        """The newest one."""
        return self._order.generation

    def ended(self) -> PeerFailure | None:
        """Why the processes of this machine are to end: others failed, or are lost; None while they may go on."""
        with self._changed:
            outcomes = [self._outcome(node) for node in self._nodes()]
            lost = self._lost_nodes()
        failures = [outcome for outcome in outcomes if outcome is not None and outcome.failure is not None]
        if failures:
            return _peer_failure(failures[0])
        return PeerFailure("killed", f"contact with node {lost[0]} is lost") if lost else None

    def gather(self, own: WorkersOutcome) -> list[WorkersOutcome]:
        """How the processes ended wherever that is known, those of this machine first. Those that still run are ended.

        Whether all can go on, `ready` says.
        """
        self._send_order(replace(self._order, ended=_peer_failure(own)))
        until = time.monotonic() + orders.ENDING_SECONDS
        with self._changed:
            while time.monotonic() < until and self._are_awaited():
                self._changed.wait(orders.POLL_SECONDS)
            outcomes = [self._outcome(node) for node in self._nodes()]
        return [own, *(outcome for outcome in outcomes if outcome is not None)]

    def ready(self) -> list[str]:
        """Which other launchers can take part in the next generation, by machine: they are here, stay, and have no
        process that still runs."""
        with self._changed:
            found = [self._states[node] for node in sorted(self._connections)]
            taking_part = self._nodes()
        return [
            state.name
            for state in found
            if not state.leaving and (state.node not in taking_part or self._has_ended(state))
        ]

    def joined(self) -> dict[str, float]:
        """All other launchers that are here and stay, and when each was first heard (monotonic clock)."""
        with self._changed:
            states = [self._states[node] for node in self._connections]
            return {state.name: self._joined[state.name] for state in states if not state.leaving}

    def start(self, members: Iterable[str] | None = None) -> int:
        """Begin the next generation, of these other launchers where the run is elastic; returns its number."""
        names = None if members is None else (LEADER, *members)
        self._send_order(Order(self._order.generation + 1, names))
        return self._order.generation

    def _send_order(self, order: Order) -> None:
        with self._changed:
            self._order = order
            for connection in self._connections.values():
                send(connection, write_order(order))

    def _nodes(self) -> list[int]:
        """The other machines of the generation."""
        members = self._order.members
        return list(range(1, self._others + 1)) if members is None else [node_of(name) for name in members[1:]]

    def _outcome(self, node: int) -> WorkersOutcome | None:
        state = self._states.get(node)
        return state.outcome if state is not None and self._has_ended(state) else None

    def _has_ended(self, state: LauncherState) -> bool:
        """Whether its processes of the newest generation are known to have ended. Those of a launcher that has come
        since ended with the one before it, which was PID 1 of its pod."""
        members = self._order.members
        if members is not None and state.name not in members:
            return True
        return state.generation == self._order.generation and state.outcome is not None

    def _lost_nodes(self) -> list[int]:
        """Those that went before they said how their processes ended."""
        long_ago = time.monotonic() - orders.LOST_SECONDS
        return [node for node in self._nodes() if self._is_lost(node, long_ago)]

    def _is_lost(self, node: int, long_ago: float) -> bool:
        state, members = self._states.get(node), self._order.members
        if members is not None and (state is None or state.name not in members):
            return True  # another launcher has come in its place
        return self._lost.get(node, long_ago) < long_ago and (state is None or not self._has_ended(state))

    def _are_awaited(self) -> bool:
        """Whether some may still say how their processes ended; where all are needed, one that is lost settles it."""
        lost = self._lost_nodes()
        if lost and not self._elastic:
            return False
        return any(self._outcome(node) is None for node in self._nodes() if node not in lost)

    def serve(self, connection: socket.socket, lines: Iterable[bytes]) -> None:
        """Listen to one of the others until its connection ends."""
        node = None
        try:
            for line in lines:
                state = read_state(self._identity, line)
                if state is None:
                    return
                node = state.node
                self._heard(connection, state)
        finally:
            with self._changed:
                if node is not None and self._connections.get(node) is connection:
                    del self._connections[node]
                    self._lost[node] = time.monotonic()
                    self._changed.notify_all()

    def _heard(self, connection: socket.socket, state: LauncherState) -> None:
        with self._changed:
            if self._connections.get(state.node) is not connection:
                self._connections[state.node] = connection
                self._lost.pop(state.node, None)
                send(connection, write_order(self._order))
            self._states[state.node] = state
            self._joined.setdefault(state.name, time.monotonic())
            self._changed.notify_all()


class _Server(DualStackServer, ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    block_on_close = False
    members: Members


class _Handler(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        keep_alive(self.request)
        with suppress(OSError, ValueError, KeyError, TypeError):  # whatever else may come to an open port
            self.server.members.serve(self.request, iter(lambda: self.rfile.readline(LONGEST_LINE), b""))


def _listen(port: int, members: Members) -> _Server | None:
    try:
        server = _Server(("", port), _Handler)
    except OSError as error:
        log.warning("port %d cannot be had (%s): the run will not start again in place", port, error.strerror)
        return None
    server.members = members
    threading.Thread(
        target=server.serve_forever, args=(orders.POLL_SECONDS,), name="kindling-members", daemon=True
    ).start()
    return server


def _peer_failure(outcome: WorkersOutcome) -> PeerFailure:
    why = outcome.failure.message if outcome.failure is not None else "the run changes its size"
    return PeerFailure(outcome.ending, why)
