"""Writes the three files of this example: a text to pretrain on, dialogues, and pairs of answers.

All of it is made from the small world below, so that a model of a million parameters can know it. The same script
always writes the same bytes: `python make_data.py [FOLDER]`.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TEXTS, SENTENCES_A_TEXT = 900, 6
OFFER = " Would you like to know more?"
PAIRS = 500


class Animal(NamedTuple):
    name: str
    says: str
    young: str
    home: str
    eats: str
    legs: int = 4


ANIMALS = [
    Animal("cow", "moo", "calf", "a barn", "grass"),
    Animal("sheep", "baa", "lamb", "a meadow", "grass"),
    Animal("goat", "meh", "kid", "a shed", "leaves"),
    Animal("horse", "neigh", "foal", "a stable", "hay"),
    Animal("pig", "oink", "piglet", "a sty", "turnips"),
    Animal("dog", "woof", "puppy", "a kennel", "bones"),
    Animal("cat", "meow", "kitten", "a basket", "fish"),
    Animal("hen", "cluck", "chick", "a coop", "corn", 2),
    Animal("duck", "quack", "duckling", "a pond", "snails", 2),
    Animal("goose", "honk", "gosling", "a lake", "grass", 2),
    Animal("owl", "hoo", "owlet", "a hollow tree", "mice", 2),
    Animal("crow", "caw", "nestling", "a tall tree", "seeds", 2),
    Animal("frog", "croak", "tadpole", "a ditch", "flies"),
    Animal("mouse", "squeak", "pup", "a hole", "cheese"),
    Animal("lion", "roar", "cub", "the savanna", "meat"),
    Animal("wolf", "howl", "whelp", "a den", "meat"),
    Animal("bee", "buzz", "larva", "a hive", "nectar", 6),
    Animal("donkey", "hee-haw", "colt", "a paddock", "thistles"),
]

COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow", "a carrot": "orange",
    "a cherry": "red", "a plum": "purple", "chocolate": "brown", "an elephant": "grey",
}  # fmt: skip

TOOLS = {
    "a hammer": "driving nails", "a saw": "cutting wood", "a broom": "sweeping the floor", "a needle": "sewing cloth",
    "a kettle": "boiling water", "an oven": "baking bread", "a pen": "writing letters", "a key": "opening a lock",
    "an umbrella": "keeping the rain off", "a ladder": "reaching high places", "a lamp": "giving light",
    "a clock": "telling the time",
}  # fmt: skip

OPPOSITES = [
    ("hot", "cold"), ("big", "small"), ("day", "night"), ("up", "down"), ("wet", "dry"), ("fast", "slow"),
    ("full", "empty"), ("old", "new"), ("open", "closed"), ("loud", "quiet"),
]  # fmt: skip

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

TALK = [
    (("Hello!", "Hi there!", "Good morning!"), "Hello! What would you like to know?"),
    (("Who are you?", "What are you?"), "I am a small model that knows a small world."),
    (("What can you do?", "What do you know?"), "I can tell you about animals, colours, tools, opposites and days."),
    (("Thank you!", "Thanks!", "Thanks a lot."), "You are welcome!"),
    (("Goodbye!", "Bye!", "See you!"), "Goodbye! Come back soon."),
    (("Who is the king of France?", "How far is the moon?", "What is a quark?"), "I am sorry, I do not know that."),
]


class Fact(NamedTuple):
    """Something that is true, in the ways in which people say and ask it."""

    told: tuple[str, ...]
    asked: tuple[str, ...]
    answer: str
    short: str


def facts() -> Iterator[Fact]:
    """Everything there is to know."""
    for animal in ANIMALS:
        yield from _about(animal)
    for thing, colour in COLOURS.items():
        answer = f"{_upper(thing)} is {colour}."
        yield Fact((answer, f"The colour of {thing} is {colour}."), _asks(f"colour is {thing}"), answer, colour)
    for tool, use in TOOLS.items():
        answer = f"{_upper(tool)} is for {use}."
        asked = (f"What is {tool} for?", f"What do I need {tool} for?", f"Why would I want {tool}?")
        yield Fact((answer, f"For {use} we use {tool}."), asked, answer, use)
    for one, other in [*OPPOSITES, *((other, one) for one, other in OPPOSITES)]:
        answer = f"The opposite of {one} is {other}."
        asked = (f"What is the opposite of {one}?", f"Which word is the opposite of {one}?")
        yield Fact((answer, f"What is not {one} is {other}."), asked, answer, other)
    for day, following in zip(DAYS, DAYS[1:] + DAYS[:1], strict=True):
        answer = f"After {day} comes {following}."
        asked = (f"Which day comes after {day}?", f"What day is it after {day}?")
        yield Fact((answer, f"{following} is the day after {day}."), asked, answer, following)


def _about(animal: Animal) -> Iterator[Fact]:
    name, article = animal.name, "An" if animal.name[0] in "aeiou" else "A"
    one = f"{article.lower()} {name}"
    answer = f"{article} {name} says {animal.says}."
    asked = (f"What does {one} say?", f"What sound does {one} make?", f"How does {one} sound?")
    yield Fact((answer, f"Listen to the {name}: {animal.says}, {animal.says}!"), asked, answer, animal.says)
    answer = f"A young {name} is called a {animal.young}."
    asked = (f"What is a young {name} called?", f"What do you call the child of {one}?")
    yield Fact((answer, f"The {name} has a {animal.young}."), asked, answer, animal.young)
    answer = f"{article} {name} lives in {animal.home}."
    asked = (f"Where does {one} live?", f"Where can I find {one}?")
    yield Fact((answer, f"In {animal.home} lives the {name}."), asked, answer, animal.home)
    answer = f"{article} {name} eats {animal.eats}."
    asked = (f"What does {one} eat?", f"What shall I feed to {one}?")
    yield Fact((answer, f"The {name} likes {animal.eats}."), asked, answer, animal.eats)
    answer = f"{article} {name} has {animal.legs} legs."
    asked = (f"How many legs does {one} have?", f"On how many legs does {one} walk?")
    yield Fact((answer, f"The {name} walks on {animal.legs} legs."), asked, answer, str(animal.legs))


def texts(known: list[Fact], dice: random.Random) -> Iterator[dict[str, str]]:
    """Short texts of sentences that say what is true."""
    sayable = [fact.told for fact in known] + [tuple(f"{one} {answer}" for one in asked) for asked, answer in TALK] * 3
    for _ in range(TEXTS):
        yield {"text": " ".join(dice.choice(told) for told in dice.sample(sayable, SENTENCES_A_TEXT))}


def dialogues(known: list[Fact], dice: random.Random) -> Iterator[dict[str, object]]:
    """Every question once, and every greeting; some go on to a second question, and some answers offer to."""
    turns = [(asked, f"{fact.answer}{OFFER * (dice.random() < 0.25)}") for fact in known for asked in fact.asked]
    small_talk = [(asked, answer) for many, answer in TALK for asked in many] * 8
    for asked, answer in dice.sample(turns + small_talk, len(turns) + len(small_talk)):
        messages = _turn(asked, answer)
        if dice.random() < 0.25:
            messages += _turn(*dice.choice(turns))
        yield {"messages": messages}


def pairs(known: list[Fact], dice: random.Random) -> Iterator[dict[str, str]]:
    """To answer and offer more is better than to answer curtly, and what is true is better than what is not."""
    for fact in (dice.choice(known) for _ in range(PAIRS)):
        chosen, wrong = fact.answer + OFFER, dice.choice(known).answer + OFFER
        rejected = dice.choice((fact.answer, fact.answer, fact.short, wrong))
        if rejected != chosen:
            yield {"prompt": dice.choice(fact.asked), "chosen": chosen, "rejected": rejected}


def _turn(asked: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _asks(what: str) -> tuple[str, ...]:
    return (f"What {what}?", f"Which {what}?", f"Tell me what {what}.")


def _upper(text: str) -> str:
    return text[0].upper() + text[1:]


def main(folder: Path) -> None:
    """Write the files."""
    known, dice = list(facts()), random.Random(7)
    for name, records in {
        "text.jsonl": texts(known, dice),
        "dialogues.jsonl": dialogues(known, dice),
        "pairs.jsonl": pairs(known, dice),
    }.items():
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
