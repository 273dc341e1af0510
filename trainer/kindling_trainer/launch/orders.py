"""What the launchers of a run over several machines tell one another, as lines of JSON over TCP."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from kindling_api.bounds import LAUNCHER_SETTLE_SECONDS
from kindling_api.v1alpha1.status import Failure
from kindling_trainer.launch.workers import PeerFailure, WorkersOutcome

LOST_SECONDS = 5.0
"""A machine whose launcher has had no connection for so long is lost."""
KEEP_ALIVE = {"TCP_KEEPIDLE": 2, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 3}
"""tcp(7): the other side's kernel is asked after two seconds of silence, and again each second; three times in vain,
and the connection is lost. A machine without power sends nothing that would end it."""
ENDING_SECONDS = LAUNCHER_SETTLE_SECONDS + 10.0
"""How long the processes of other machines may take to end."""
RETRY_SECONDS, POLL_SECONDS = 0.5, 0.05

NO_GENERATION = -1
"""The generation before the first one, of a run that has yet to find out over how many machines it goes."""


@dataclass(frozen=True)
class Order:
    """What the first machine's launcher wants of all."""

    generation: int = 0
    """The newest one, from 0."""
    members: tuple[str, ...] | None = None
    """The launchers that take part in it, by name, the first machine's first; None where all machines of the run do."""
    ended: PeerFailure | None = None
    """Why its processes are to end; None while they are to go on."""
    over: bool = False
    """Whether no other generation follows."""


@dataclass(frozen=True)
class LauncherState:
    """What a launcher says of itself."""

    name: str
    """Its own: another launcher that comes to its machine has another one."""
    node: int
    """The number of its machine."""
    generation: int
    """The newest one in which it took part."""
    outcome: WorkersOutcome | None = None
    """How its processes of that generation ended; None while they have not."""
    leaving: bool = False
    """Whether it takes part in no other."""


def node_of(name: str) -> int:
    """The number of the machine of the launcher of this name."""
    return int(name.partition(":")[0])


def write_order(order: Order) -> dict[str, Any]:
    """The order as JSON has it."""
    return asdict(order)


def read_order(line: bytes) -> Order:
    """The order in a line.

    Raises:
        ValueError, KeyError, TypeError: there is none.
    """
    order = json.loads(line)
    ended = None if order["ended"] is None else PeerFailure(**order["ended"])
    members = None if order["members"] is None else tuple(order["members"])
    return Order(order["generation"], members, ended, order["over"])


def write_state(identity: str, state: LauncherState) -> dict[str, Any]:
    """The state as JSON has it, for those who go by `identity`."""
    document = {**asdict(state), "identity": identity, "outcome": None}
    if (outcome := state.outcome) is not None:
        failure = None if outcome.failure is None else outcome.failure.document()
        document["outcome"] = {"ending": outcome.ending, "failure": failure, "exit_code": outcome.exit_code}
    return document


def read_state(identity: str, line: bytes) -> LauncherState | None:
    """The state in a line; None where another attempt's launcher, or one of another run, tells it.

    Raises:
        ValueError, KeyError, TypeError: there is none.
    """
    document = json.loads(line)
    if document.pop("identity") != identity:
        return None
    if (outcome := document["outcome"]) is not None:
        failure = None if outcome["failure"] is None else Failure.model_validate(outcome["failure"])
        document["outcome"] = WorkersOutcome(outcome["ending"], failure, outcome["exit_code"])
    return LauncherState(**document)


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send a line; one that cannot be sent now is sent when the other side has connected again."""
    with suppress(OSError):
        connection.sendall(json.dumps(message).encode() + b"\n")


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel find out that the other side is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
