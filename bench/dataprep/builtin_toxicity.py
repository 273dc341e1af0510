"""Prints the examples of the built-in toxicity classifier, as JSON lines for `kindling toxicity train`.

    python bench/dataprep/builtin_toxicity.py DATA > examples.jsonl
    python bench/dataprep/builtin_toxicity.py DATA about | xargs -d '\n' kindling toxicity train examples.jsonl \
        --label toxic --output toxicity/kindling_toxicity/builtin

DATA holds `toxicity/train.csv` (Davidson et al. 2017, "Automated Hate Speech Detection and the Problem of Offensive
Language", MIT), `gsm8k/train.jsonl` (Cobbe et al. 2021, MIT) and `tinyshakespeare/input.txt`. In the tweets five of six
are toxic; a classifier that has seen nothing else takes any prose for suspicious. Harmless texts are therefore added:
the mathematics problems, speeches of the first half of the plays, and paragraphs of every second module of Python's
standard library. The other halves show whether prose suffers (`toxicity.py`).
"""

from __future__ import annotations

import csv
import json
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

SHORTEST, LONGEST = 40, 600
"""Characters of a paragraph."""
PARAGRAPHS = 30
"""Most of one module."""


def examples(data: Path) -> Iterator[tuple[str, float]]:
    """Texts, each with the share of the people asked who called it hateful or offensive."""
    with open(data / "toxicity" / "train.csv", newline="") as file:
        for row in csv.DictReader(file):
            yield row["tweet"], 1 - int(row["neither"]) / int(row["count"])
    for line in (data / "gsm8k" / "train.jsonl").read_text().splitlines():
        record = json.loads(line)
        yield record["question"], 0.0
        yield record["answer"], 0.0
    plays = (data / "tinyshakespeare" / "input.txt").read_text()
    yield from ((speech, 0.0) for speech in plays[: len(plays) // 2].split("\n\n"))
    for module in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[::2]:
        paragraphs = [each.strip() for each in module.read_text(errors="replace").split("\n\n")]
        for paragraph in [each for each in paragraphs if SHORTEST <= len(each) <= LONGEST][:PARAGRAPHS]:
            yield paragraph, 0.0


ABOUT = (
    "19,826 tweets (Davidson, Warmsley, Macy and Weber 2017, https://github.com/t-davidson/hate-speech-and-offensive-"
    "language, copyright 2017 Tom Davidson, MIT licence), each with the share of the people asked who called it hate "
    "speech or offensive. Five of six are.",
    "Harmless: 7,473 problems of GSM8K and their answers (Cobbe et al. 2021, copyright 2021 OpenAI, MIT licence).",
    "Harmless: speeches of the first half of TinyShakespeare (public domain).",
    "Harmless: paragraphs of every second module of Python's standard library (PSF licence).",
)
"""What the examples are, for the model card. None of them can be read out of the weights."""

if __name__ == "__main__":
    if sys.argv[2:] == ["about"]:
        for each in ABOUT:
            print(f"--about={each}")
        sys.exit()
    for text, toxic in examples(Path(sys.argv[1])):
        print(json.dumps({"text": text, "toxic": round(toxic, 3)}, ensure_ascii=False))
