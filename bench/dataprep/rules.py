"""The rules of Gopher, C4 and FineWeb on one core: measures and decisions, ours beside datatrove's filters.

    OMP_NUM_THREADS=1 python bench/dataprep/rules.py TEXTS.jsonl [--peer PYTHON] [--megabytes N] [--check N]

TEXTS.jsonl is what `real_text.py` writes. PYTHON is an interpreter with datatrove[processing] and spacy; without it
only ours is measured. Over the first megabytes (`--check`) a plain reading of the rules is run besides
(tests/unit/dataprep/steps/test_measure.py), whose decisions have to be the same for each document.

Megabytes of UTF-8 a second of CPU time, loading not counted. datatrove gets the documents in the same order, and stops
at a tenth of them: it is slow and its speed does not change. Both sides apply every rule to every document, and C4's as
FineWeb did, without the rule that lines end in punctuation, which leaves little of these texts for what comes after.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

HERE = Path(__file__).parent
BATCH_CHARACTERS = 4 << 20
PEER_SHARE = 10


def main() -> None:
    """Measures both sides and reports."""
    parser = options_of(__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--peer", help="an interpreter that has datatrove")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--check", type=float, default=20, help="megabytes")
    options = parser.parse_args()
    figures: dict[str, Any] = {"ours": ours(list(_read(options.texts, options.megabytes * 1e6)), options.check)}
    if options.peer:
        command = [options.peer, HERE / "peers/datatrove_rules.py", options.texts, str(options.megabytes / PEER_SHARE)]
        figures["datatrove"] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    print(f"{'MB/s of CPU time':<20}{'ours':>10}{'datatrove':>12}{'times':>8}")
    for name, speed in figures["ours"]["speed"].items():
        theirs = figures.get("datatrove", {}).get("speed", {}).get(name)
        print(f"{name:<20}{speed:>10.2f}" + (f"{theirs:>12.3f}{speed / theirs:>8.1f}" if theirs else ""))
    print(f"{figures['ours']['documents']:,} documents, {figures['ours']['removed']:,} removed")
    print(
        f"{figures['ours']['checked']:,} checked, {figures['ours']['different']} decided otherwise by the plain reading"
    )
    write_figures(options.json, figures)


def ours(texts: Sequence[str], check: float) -> dict[str, Any]:
    """Speed alone and together, and how many decisions differ from those of the plain reading."""
    from kindling_api.v1alpha1.filters import C4, Filter, FineWeb, GopherQuality, GopherRepetition
    from kindling_dataprep.steps.c4 import c4_lines
    from kindling_dataprep.steps.decide import decide
    from kindling_dataprep.steps.measure import measure

    spec = C4(require_terminal_punctuation=False)
    rules = {
        "gopherQuality": Filter(gopher_quality=GopherQuality()),
        "gopherRepetition": Filter(gopher_repetition=GopherRepetition()),
        "c4": Filter(c4=spec),
        "fineWeb": Filter(fine_web=FineWeb()),
    }
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    speed: dict[str, float] = {}
    removed = different = checked = characters = 0
    for name, filters in {**{name: [rule] for name, rule in rules.items()}, "together": list(rules.values())}.items():
        seconds = 0.0
        for batch in _batches(texts):
            started = time.process_time()
            lines = [c4_lines(text, spec)[0] for text in batch] if rules["c4"] in filters else batch
            decisions = decide(measure(lines, filters), filters)
            seconds += time.process_time() - started
            if name == "together":
                reasons = [None if each is None else (each.rule, each.measure) for each in decisions]
                removed += sum(reason is not None for reason in reasons)
                if characters < check * 1e6:
                    characters += sum(map(len, batch))
                    checked += len(batch)
                    different += sum(map(_differs, _plain_reasons(lines, filters), reasons))
        speed[name] = round(megabytes / seconds, 3)
    counts = {"documents": len(texts), "removed": removed, "checked": checked, "different": different}
    return {"megabytes": megabytes, "speed": speed, **counts}


def _differs(one: Any, other: Any) -> bool:
    return bool(one != other)


def _plain_reasons(texts: Sequence[str], filters: Sequence[Any]) -> Iterator[tuple[str, str] | None]:
    """The first bound that each document breaks, by the definitions of the tests, one document and rule at a time."""
    sys.path.insert(0, str(HERE.parents[1] / "tests/unit/dataprep/steps"))
    import test_measure as plain

    from kindling_dataprep.steps.decide import bounds

    asked = list(bounds(filters))
    for text in texts:
        measures = plain.gopher_quality(text) | plain.gopher_repetition(text) | plain.c4(text) | plain.fine_web(text)
        yield next(
            (
                (bound.rule, bound.measure)
                for bound in asked
                for value in [measures[f"{bound.rule}.{bound.measure}"]]
                if (value < bound.threshold if bound.is_minimum else value > bound.threshold)
            ),
            None,
        )


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _read(path: Path, wanted: float) -> Iterator[str]:
    total = 0
    with open(path) as file:
        for line in file:
            text = json.loads(line)["text"]
            yield text
            total += len(text.encode())
            if total >= wanted:
                return


if __name__ == "__main__":
    main()
