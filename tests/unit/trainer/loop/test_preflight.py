"""A look at the machines: real transfers between processes, and what is made of the figures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kindling_trainer.loop.preflight import slow_links

PROGRAM = str(Path(__file__).with_name("look_at_machines.py"))


def look(folder: Path, *silent: str, said_by: list[int]) -> list[str]:
    """What these of three processes say."""
    command = [sys.executable, PROGRAM]
    given = [[*command, str(rank), str(folder / "store"), *silent] for rank in range(3)]
    processes = [subprocess.Popen(one, stdout=subprocess.PIPE, text=True) for one in given]
    try:
        return [processes[rank].communicate(timeout=300)[0] for rank in said_by]
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_neighbours_hear_one_another_and_who_does_not_names_both(tmp_path: Path) -> None:
    said = look(tmp_path, said_by=[0, 1, 2])
    assert said[0] == said[1] == said[2], "the same on all"
    assert "a multiplication takes " in said[0] and " on 3 processes, and 16 MiB take " in said[0]
    (tmp_path / "store").unlink()
    (heard,) = look(tmp_path, "1", said_by=[2])
    assert heard.startswith(
        "preflight: a transfer from process 1 on node 0 to process 2 on node 1 did not arrive within 1 seconds"
    )


@pytest.mark.parametrize(("transfers", "nodes", "slow"), [
    ([1, 1, 1, 1], [0, 1, 2, 3], {}),
    ([1, 1, 3, 1], [0, 1, 2, 3], {2: 3}),
    ([50, 1, 50, 1], [0, 0, 1, 1], {}),  # within a machine it is another matter
    ([50, 1, 50, 4], [0, 0, 1, 1], {3: 4}),
    ([0], [0], {}),
])  # fmt: skip
def test_transfers_are_compared_among_those_of_their_kind(
    transfers: list[float], nodes: list[int], slow: dict[int, float]
) -> None:
    assert slow_links(transfers, nodes) == slow
