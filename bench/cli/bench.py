#!/usr/bin/env python3
"""What a command costs before it does anything: processor time of `kindling --help` and of a plan, the least of a few.

    python bench/cli/bench.py [--times 5]

The peer is Python itself, doing nothing. The goal is half a second for help, on a core that nobody shares; a plan
reads and cleans a sample of the texts, to say what a build would make of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from common import options_of, write_figures

EXAMPLE = Path(__file__).parents[2] / "examples" / "01-quickstart"
KINDLING = (sys.executable, "-m", "kindling_cli.main")


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--times", type=int, default=5, help="how often each is run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as store:
        commands = {
            "python -c pass": (sys.executable, "-c", "pass"),
            "kindling --help": (*KINDLING, "--help"),
            "kindling plan": (*KINDLING, "plan", str(EXAMPLE), "--store", store, "--flops", "1e10"),
        }
        figures = {name: min(seconds(command) for _ in range(options.times)) for name, command in commands.items()}
    for name, taken in figures.items():
        print(f"{name:<16} {taken:.2f} s of a core")
    write_figures(options.json, figures)


def seconds(command: tuple[str, ...]) -> float:
    """Processor time of a command, and of what it starts."""
    before = os.times()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main()
