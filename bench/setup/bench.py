"""How long `make setup` takes with an empty cache, by uv as it does it and by pip alone, and the first import after it.

    python bench/setup/bench.py [--json FILE]

Each way makes an environment of its own in a temporary folder, from the index that pip is set up with, and deletes it.
pip compiles modules to bytecode as it installs; after uv the first import does that, which is therefore timed too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

PROJECT = Path(__file__).resolve().parents[2]
COLD = {"PIP_NO_CACHE_DIR": "1", "UV_NO_CACHE": "1"}
WAYS = {
    "make setup": "make -s setup VENV={venv}",
    "pip alone": "{python} -m venv {venv} && {venv}/bin/pip install -q -c requirements.lock -e '.[dev]'",
}
FIRST_IMPORT = "import torch, transformers, pyarrow, ray, gradio"


def main() -> None:
    parser = options_of(__doc__)
    json_file: Path | None = parser.parse_args().json
    rows = {way: measure(command) for way, command in WAYS.items()}
    print(f"{os.cpu_count()} cores\n{'':12} {'seconds':>8} {'CPU-s':>8} {'then imports':>13} {'load before':>12}")
    for way, row in rows.items():
        print(f"{way:12} {row['seconds']:8.1f} {row['cpu']:8.1f} {row['imports']:13.1f} {row['load']:12.1f}")
    write_figures(json_file, rows)


def measure(command: str) -> dict[str, float]:
    """One way, in a folder of its own: its time, the time of the first import after it, and the load it met.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        seconds, cpu = timed(["sh", "-c", command.format(venv=venv, python=sys.executable)])
        imports, _ = timed([str(venv / "bin" / "python"), "-c", FIRST_IMPORT])
    return {"seconds": seconds, "cpu": cpu, "imports": imports, "load": load}


def timed(command: list[str]) -> tuple[float, float]:
    """Run it; seconds by the clock, and of processors."""
    start, before = time.monotonic(), os.times()
    subprocess.run(command, cwd=PROJECT, env={**os.environ, **COLD}, check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - start, cpu


if __name__ == "__main__":
    main()
