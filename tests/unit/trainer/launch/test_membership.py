"""Launchers that start their processes again together: no generation begins while one before it still runs."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from kindling_api.v1alpha1.status import Failure
from kindling_trainer.launch import orders
from kindling_trainer.launch.leader import LeaderConnection
from kindling_trainer.launch.membership import Members
from kindling_trainer.launch.orders import Order
from kindling_trainer.launch.workers import WorkersOutcome

KILLED = WorkersOutcome(
    "killed", Failure(reason="RankFailed", message="process 1 was ended by SIGKILL", rank=1, signal="SIGKILL")
)
LOST = WorkersOutcome("raised", Failure(reason="RankFailed", message="lost contact", rank=0))
FINISHED = WorkersOutcome("finished")


def wait_for(condition: Callable[[], Any]) -> Any:
    until = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Members, list[LeaderConnection]]]]:
    """The launchers of a run over so many machines, connected."""
    monkeypatch.setattr(orders, "LOST_SECONDS", 0.5)
    monkeypatch.setattr(orders, "RETRY_SECONDS", 0.02)
    opened: list[Any] = []

    def make(nodes: int, *identities: str, elastic: bool = False) -> tuple[Members, list[LeaderConnection]]:
        opened.append(members := Members("a run", nodes - 1, 0, elastic=elastic))
        port = members._server.server_address[1]
        leaders = [
            LeaderConnection(identity, node, ("127.0.0.1", port), elastic=elastic)
            for node, identity in enumerate(identities or ["a run"] * (nodes - 1), start=1)
        ]
        opened.extend(leaders)
        return members, leaders

    yield make
    for each in opened:
        each.close()


def test_what_ends_processes_on_one_machine_ends_them_on_all_and_the_next_start_is_common(together: Any) -> None:
    members, leaders = together(3)
    assert members.ended() is None and all(leader.ended() is None for leader in leaders)
    leaders[0].report(KILLED)
    assert wait_for(members.ended).why == "process 1 was ended by SIGKILL"
    threading.Timer(0.2, lambda: leaders[1].report(LOST)).start()
    assert [outcome.ending for outcome in members.gather(LOST)] == ["raised", "killed", "raised"]
    assert wait_for(leaders[1].ended).why == "lost contact"
    assert members.start() == 1
    assert [leader.next_generation().generation for leader in leaders] == [1, 1]
    assert members.ended() is None and all(leader.ended() is None for leader in leaders)


def test_a_machine_that_is_gone_or_has_done_its_part_leaves_none_to_start_again(together: Any) -> None:
    members, leaders = together(3)
    leaders[0].report(LOST)
    wait_for(members.ended)
    leaders[1].close()
    assert len(members.gather(KILLED)) == 2 and len(members.ready()) == 1

    members, leaders = together(2)
    leaders[0].report(FINISHED, leaving=True)
    wait_for(lambda: members._outcome(1))
    leaders[0].close()
    time.sleep(1)
    assert members.ended() is None, "the first machine still has its model to write"
    assert members.gather(KILLED) == [KILLED, FINISHED] and members.ready() == []


def test_silence_of_a_machine_is_told_and_one_that_comes_back_is_not_lost(together: Any) -> None:
    members, (leader,) = together(2)
    wait_for(lambda: leader._connection is not None and members._connections)
    leader._connection.shutdown(socket.SHUT_RDWR)
    time.sleep(1)
    assert members.ended() is None and leader.ended() is None, "it has connected again"
    leader.close()
    assert wait_for(members.ended).why == "contact with node 1 is lost"


def test_only_those_of_one_attempt_meet_and_the_end_of_the_first_lets_the_others_go(
    together: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    members, (own, other) = together(3, "a run", "another run")
    own.report(KILLED)
    wait_for(members.ended)
    other.report(KILLED)
    monkeypatch.setattr(orders, "ENDING_SECONDS", 1.0)
    assert members.gather(LOST) == [LOST, KILLED] and len(members.ready()) == 1, "one is missing"
    members.close()
    assert own.next_generation() is None and other.next_generation() is None


@pytest.mark.parametrize("races", [30, pytest.param(1000, marks=pytest.mark.exhaustive)])
def test_no_process_of_a_generation_lives_when_one_of_the_next_begins(together: Any, races: int) -> None:
    members, leaders = together(4)
    alive: set[tuple[int, int]] = set()
    mistakes: list[Any] = []
    chance = random.Random(races)
    failing = [set(chance.sample(range(4), chance.randint(1, 4))) for _ in range(races)] + [{0}]

    def run(node: int, generation: int, ended: Callable[[], object]) -> None:
        if any(other != generation for _, other in alive):
            mistakes.append((node, generation, set(alive)))
        alive.add((node, generation))
        time.sleep(chance.random() / 1000)
        if node not in failing[generation]:
            wait_for(ended)
        time.sleep(chance.random() / 1000)
        alive.discard((node, generation))

    def follow(node: int, leader: LeaderConnection) -> None:
        order: Order | None = Order()
        while order is not None:
            run(node, order.generation, leader.ended)
            leader.report(KILLED)
            order = leader.next_generation()

    wait_for(lambda: len(members._connections) == 3)
    threads = [threading.Thread(target=follow, args=each) for each in enumerate(leaders, start=1)]
    for thread in threads:
        thread.start()
    with closing(members):
        for generation in range(races):
            run(0, generation, members.ended)
            members.gather(KILLED)
            assert len(members.ready()) == 3 and members.start() == generation + 1
        run(0, races, members.ended)
        assert len(members.gather(KILLED)) == 4
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert mistakes == [] and alive == set()


def test_a_launcher_that_comes_to_the_place_of_another_has_no_part_in_what_that_one_did(together: Any) -> None:
    members, leaders = together(3, elastic=True)
    wait_for(lambda: len(members.ready()) == 2)
    members.start(members.ready())
    assert [leader.place(leader.next_generation()) for leader in leaders] == [1, 2]
    leaders[0].close()
    port = members._server.server_address[1]
    with closing(LeaderConnection("a run", 1, ("127.0.0.1", port), elastic=True)) as newcomer:
        assert wait_for(members.ended).why == "contact with node 1 is lost"
        wait_for(lambda: newcomer._order)
        assert newcomer._order.generation == 0 and not newcomer._takes_part(newcomer._order)
        leaders[1].report(LOST)
        assert members.gather(LOST) == [LOST, LOST], "who is gone is not waited for"
        assert [name.partition(":")[0] for name in members.ready()] == ["1", "2"]
        members.start(members.ready()[:1])
        order = newcomer.next_generation()
        assert (order.generation, newcomer.place(order)) == (1, 1)
        wait_for(lambda: leaders[1].ended() is None)  # it has heard too, waits, and may be wanted again
