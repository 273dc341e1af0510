"""Writes the sums, which are there already, beside this file or into a given folder; this is how they were made.

sums.jsonl       a text of sums, to pretrain on
dialogues.jsonl  questions and answers of which half are wrong, to learn from how one answers
questions.jsonl  the same questions with what is right, for the reward
validation.jsonl all questions, a quarter of which stand in neither, to evaluate the model on
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
LARGEST = 9
LINES, DOCUMENTS = 40, 100
NEVER_ASKED, TIMES = 25, 4


def main() -> None:
    choose = random.Random(4)
    sums = [(a, b) for a in range(LARGEST + 1) for b in range(LARGEST + 1)]
    documents = ["\n".join(f"{a} + {b} = {a + b}" for a, b in choose.choices(sums, k=LINES)) for _ in range(DOCUMENTS)]
    write("sums.jsonl", ({"text": document} for document in documents))
    choose.shuffle(sums)
    asked = sums[NEVER_ASKED:]
    write("validation.jsonl", (question(a, b, a + b) for a, b in sums))
    write("questions.jsonl", (question(a, b, a + b) for a, b in asked))
    write("dialogues.jsonl", (question(a, b, guess(a + b, choose)) for a, b in asked * TIMES))


def guess(right: int, choose: random.Random) -> int:
    """The right number, half of the times."""
    return right if choose.random() < 0.5 else abs(right + choose.choice((-3, -2, -1, 1, 2, 3)))


def question(a: int, b: int, answer: int) -> dict[str, str]:
    return {"question": f"{a} + {b} =", "answer": str(answer)}


def write(name: str, records: Iterable[dict[str, Any]]) -> None:
    (FOLDER / name).write_text("".join(json.dumps(record) + "\n" for record in records))


if __name__ == "__main__":
    main()
