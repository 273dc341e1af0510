"""Adapters beside TRL with PEFT, and beside fine-tuning of all weights: one model, records, precision and threads.

    python bench/lora/bench.py sft --data gsm8k/train.jsonl --trl-python venv/bin/python

The environment of `--trl-python` needs TRL and PEFT (1.16 and 0.21 were used) with Kindling's versions of torch and
transformers; without it, only ours is measured. What is compared before the first step, and what the figures are, is
said in `bench/align/bench.py`, of which this has three runs: all weights and adapters here, adapters there. All
adapters have one rank, 16 unless `--rank` says otherwise, and are on all linear layers of the blocks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "align"))
import bench as align
from common import write_figures

RANK = 16


def main() -> None:
    """Measure the three, and print a table."""
    options = align.options_of_sides(__doc__)
    options.rank = options.rank or RANK
    whole = argparse.Namespace(**{**vars(options), "rank": 0})
    with tempfile.TemporaryDirectory(prefix="kindling-bench-") as name:
        folder = Path(name)
        count = align.write_records(folder, align.make_base(folder, options), options)
        before = {"kindling": align.ours_before(folder, options)}
        if options.trl_python:
            before["trl"] = align.trl_before(folder, options)
            align.check_same(before["kindling"], before["trl"])
        rows: list[dict[str, Any]] = [{"side": "kindling", **align.ours(folder, count, options)}]
        if options.trl_python:
            rows.append({"side": "trl + peft", **align.trl(folder, count, options)})
        rows.append({"side": "all", **align.ours(folder, count, whole)})
    write_figures(options.json, {"method": options.method, "samples": count, "before": before, "rows": rows})
    align.show(options, count, before, rows)


if __name__ == "__main__":
    main()
