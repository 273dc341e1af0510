"""The launcher of the first machine, as that of another one sees it."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

from kindling_trainer.launch import orders
from kindling_trainer.launch.orders import (
    NO_GENERATION,
    LauncherState,
    Order,
    keep_alive,
    read_order,
    send,
    write_state,
)
from kindling_trainer.launch.workers import PeerFailure, WorkersOutcome


class LeaderConnection:
    """The connection to the first machine's launcher, made again whenever it is lost.

    Args:
        identity: as `Members` has it.
        node: the number of this machine.
        address: where the first one listens.
        elastic: whether this machine takes part only once the first one says so.
    """

    def __init__(self, identity: str, node: int, address: tuple[str, int], *, elastic: bool = False) -> None:
        self._identity, self._address, self._elastic = identity, address, elastic
        self._state = LauncherState(f"{node}:{secrets.token_hex(4)}", node, NO_GENERATION if elastic else 0)
        self._order: Order | None = None
        self._changed = threading.Condition()
        self._connection: socket.socket | None = None
        self._lost_since: float | None = None  # never before the first connection
        self._over_since: float | None = None
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
            if order is not None and order.generation == self._state.generation and order.ended is not None:
                return order.ended
            if self._over_since is not None and time.monotonic() - self._over_since > orders.LOST_SECONDS:
                return PeerFailure("stopped", "node 0 has ended")
            return PeerFailure("killed", "contact with node 0 is lost") if self._is_lost() else None

    def report(self, outcome: WorkersOutcome, *, leaving: bool = False) -> None:
        """How the processes of this machine have ended, and whether it takes part in no other generation."""
        self._become(replace(self._state, outcome=outcome, leaving=leaving))

    def next_generation(self, asked: list[int] | None = None) -> Order | None:
        """The generation that the first machine starts with this one, as soon as it does; None where it starts no
        other, or this launcher was asked to stop."""
        until = time.monotonic() + 2 * orders.ENDING_SECONDS
        with self._changed:
            while (self._elastic or time.monotonic() < until) and not self._is_lost() and not asked:
                order = self._order
                if order is not None and order.generation > self._state.generation and self._takes_part(order):
                    self._become(replace(self._state, generation=order.generation, outcome=None))
                    return order
                if (order is None and not self._elastic) or (order is not None and order.over):
                    return None
                self._changed.wait(orders.POLL_SECONDS)
        return None

    def place(self, order: Order) -> int:
        """This machine's number among those that take part."""
        return self._state.node if order.members is None else order.members.index(self._state.name)

    @property
    def is_over(self) -> bool:
        """Whether the first machine has said that it starts no other generation."""
        return self._order is not None and self._order.over

    def _takes_part(self, order: Order) -> bool:
        return order.members is None or self._state.name in order.members

    def _become(self, state: LauncherState) -> None:
        with self._changed:
            self._state = state
            if self._connection is not None:
                send(self._connection, write_state(self._identity, state))

    def _is_lost(self) -> bool:
        if self.is_over:  # it has gone in order
            return False
        return self._lost_since is not None and time.monotonic() - self._lost_since > orders.LOST_SECONDS

    def _listen(self) -> None:
        while not self._closed:
            with suppress(OSError), socket.create_connection(self._address, timeout=orders.LOST_SECONDS) as connection:
                keep_alive(connection)
                self._hear(connection)
            time.sleep(orders.RETRY_SECONDS)

    def _hear(self, connection: socket.socket) -> None:
        connection.settimeout(None)
        with self._changed:
            self._connection = connection
            send(connection, write_state(self._identity, self._state))
        for line in connection.makefile("rb"):
            with self._changed:
                self._order, self._lost_since = read_order(line), None
                if self._order.over and self._over_since is None:
                    self._over_since = time.monotonic()
                self._changed.notify_all()
        with self._changed:
            self._connection = None
            if self._order is not None and self._lost_since is None:
                self._lost_since = time.monotonic()
            self._changed.notify_all()
