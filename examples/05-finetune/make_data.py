"""Writes the two files that the model is tuned on: dialogues, and pairs of answers.

The model knows the countries below already (make_model.py): what it learns here is a manner. A few countries stand in
neither file, so that one can see whether it keeps what it knew. The same script always writes the same bytes:
`python make_data.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

OFFER = " Would you like to know more?"
PAIRS = 160


class Country(NamedTuple):
    name: str
    capital: str
    continent: str
    language: str


COUNTRIES = [
    Country("France", "Paris", "Europe", "French"),
    Country("Spain", "Madrid", "Europe", "Spanish"),
    Country("Italy", "Rome", "Europe", "Italian"),
    Country("Germany", "Berlin", "Europe", "German"),
    Country("Poland", "Warsaw", "Europe", "Polish"),
    Country("Sweden", "Stockholm", "Europe", "Swedish"),
    Country("Greece", "Athens", "Europe", "Greek"),
    Country("Hungary", "Budapest", "Europe", "Hungarian"),
    Country("Japan", "Tokyo", "Asia", "Japanese"),
    Country("Thailand", "Bangkok", "Asia", "Thai"),
    Country("Mongolia", "Ulaanbaatar", "Asia", "Mongolian"),
    Country("Nepal", "Kathmandu", "Asia", "Nepali"),
    Country("Egypt", "Cairo", "Africa", "Arabic"),
    Country("Ghana", "Accra", "Africa", "English"),
    Country("Angola", "Luanda", "Africa", "Portuguese"),
    Country("Peru", "Lima", "South America", "Spanish"),
    Country("Brazil", "Brasilia", "South America", "Portuguese"),
    Country("Cuba", "Havana", "North America", "Spanish"),
]
NEVER_TUNED_ON = [
    Country("Norway", "Oslo", "Europe", "Norwegian"),
    Country("Vietnam", "Hanoi", "Asia", "Vietnamese"),
    Country("Senegal", "Dakar", "Africa", "French"),
    Country("Chile", "Santiago", "South America", "Spanish"),
]


class Fact(NamedTuple):
    """Something that is true, and the ways in which people ask for it."""

    asked: tuple[str, ...]
    short: str
    whole: str


def facts(countries: list[Country]) -> Iterator[Fact]:
    """Three of each country."""
    for name, capital, continent, language in countries:
        asked = (f"What is the capital of {name}?", f"Which city is the capital of {name}?")
        yield Fact((*asked, f"Tell me the capital of {name}."), f"{capital}.", f"The capital is {capital}.")
        asked = (f"Where is {name}?", f"On which continent is {name}?", f"Which continent is {name} part of?")
        yield Fact(asked, f"{continent}.", f"It lies in {continent}.")
        asked = (f"What do people speak in {name}?", f"Which language is spoken in {name}?")
        yield Fact(asked, f"{language}.", f"People there speak {language}.")


def dialogues(dice: random.Random) -> Iterator[dict[str, object]]:
    """Every question, answered in a whole sentence; some answers offer to go on."""
    turns = [(asked, fact.whole + OFFER * (dice.random() < 0.25)) for fact in facts(COUNTRIES) for asked in fact.asked]
    for asked, answer in dice.sample(turns, len(turns)):
        yield {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def pairs(dice: random.Random) -> Iterator[dict[str, str]]:
    """To answer and to offer more is better than to answer alone, or in a word."""
    known = list(facts(COUNTRIES))
    for fact in dice.choices(known, k=PAIRS):
        rejected = dice.choice((fact.whole, fact.whole, fact.short))
        yield {"prompt": dice.choice(fact.asked), "chosen": fact.whole + OFFER, "rejected": rejected}


def main(folder: Path) -> None:
    """Write the files."""
    dice = random.Random(5)
    for name, records in {"dialogues.jsonl": dialogues(dice), "pairs.jsonl": pairs(dice)}.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
