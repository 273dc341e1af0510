"""Ten languages: what the rules keep and remove, and which near-duplicates and leaks are found, beside datatrove.

    OMP_NUM_THREADS=1 python bench/languages/bench.py [--documents N] [--peer PYTHON] [--json FILE]

PYTHON is an interpreter with datatrove[processing], spacy, jieba, sudachipy, sudachidict_core, pythainlp, kiwipiepy and
indic-nlp-library; without it only ours is measured. The texts are made of words of the Universal Declaration of Human
Rights (declaration.json: the same thirty paragraphs in each language; of Chinese, Japanese and Thai, pieces of some
characters), drawn at random, so that nothing repeats that was not made to. For each language:

- prose: documents of sentences, and the declaration itself, which should stay
- rubbish: one sentence over and over, menus, words among numbers, which should go by one of the rules of Gopher and
  FineWeb; datatrove gets FineWeb-2's thresholds and stop words of the language
- pairs: documents of which some words were replaced, of Jaccard similarity 0.8 and more by runs of five words, or of
  five characters where no spaces are; datatrove has runs of five of its own tokenizer's words, and its own bands
- questions of 9 to 30 words, each pasted into a document, and as many documents without one

Both sides get the language that the texts are in; of ours it is found, as in a build.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

HERE = Path(__file__).parent
CODES = {"ar": "arb_Arab", "de": "deu_Latn", "en": "eng_Latn", "hi": "hin_Deva", "ja": "jpn_Jpan", "ko": "kor_Hang"}
CODES |= {"ru": "rus_Cyrl", "ta": "tam_Taml", "th": "tha_Thai", "zh": "cmn_Hani"}
ENDS = {"ja": "。", "zh": "。", "hi": "।", "th": ""}
UNSPACED = ("ja", "th", "zh")
COUNTS = ("prose", "rubbish", "pairs", "leaks", "alarms")
SIMILARITY = 0.8


def main() -> None:
    """Makes the texts, measures both sides and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--documents", type=int, default=200, help="of each kind and language")
    parser.add_argument("--peer", help="an interpreter that has datatrove")
    options = parser.parse_args()
    texts = {code: made_up(code, options.documents) for code in CODES}
    figures: dict[str, Any] = {"asked": {code: _asked(texts[code]) for code in CODES}, "ours": ours(texts)}
    if options.peer:
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump({CODES[code]: each | {"rules": _rules(code)} for code, each in texts.items()}, file)
            file.flush()
            command = [options.peer, HERE / "datatrove_side.py", file.name]
            theirs = json.loads(subprocess.run(command, check=True, capture_output=True).stdout.splitlines()[-1])
        figures["datatrove"] = {code: theirs[name] for code, name in CODES.items()}
    _show(figures)
    write_figures(options.json, figures)


def ours(texts: dict[str, Any]) -> dict[str, dict[str, int]]:
    """By language, how many of each kind were kept, removed or found."""
    from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec, Source
    from kindling_api.v1alpha1.filters import Filter, FineWeb, GopherQuality, GopherRepetition
    from kindling_dataprep.records import Document
    from kindling_dataprep.steps.clean_batch import clean_batch
    from kindling_dataprep.steps.decontaminate import evaluation_set, leaks

    rules = (
        Filter(gopher_quality=GopherQuality()),
        Filter(gopher_repetition=GopherRepetition()),
        Filter(fine_web=FineWeb()),
    )
    spec = DatasetBuildSpec(sources=(Source(uri="./texts"),), filters=rules)

    def kept(documents: Sequence[str]) -> int:
        records = [Document(id=f"0/{number}", source=0, text=text) for number, text in enumerate(documents)]
        return len(clean_batch(records, spec).kept)

    found = {}
    for code, each in texts.items():
        known = evaluation_set("questions", each["questions"], 13)
        found[code] = {
            "prose": kept(each["prose"]),
            "rubbish": len(each["rubbish"]) - kept(each["rubbish"]),
            "pairs": _pairs_found(each["pairs"]),
            "leaks": sum(map(bool, leaks(each["leaking"], [known]))),
            "alarms": sum(map(bool, leaks(each["innocent"], [known]))),
        }
    return found


def _pairs_found(pairs: Sequence[tuple[str, str]]) -> int:
    from kindling_api.v1alpha1.dataset_build import MinHash
    from kindling_dataprep.steps.recall import PlantedPair, measure_recall

    return measure_recall([PlantedPair(*pair) for pair in pairs], MinHash()).found


def made_up(code: str, count: int) -> dict[str, Any]:
    """The texts of one language; the same each time."""
    chance = random.Random(code)
    paragraphs: list[str] = json.loads((HERE / "declaration.json").read_text())[code]
    words = _words(paragraphs, code, chance)
    documents = [_document(words, code, chance) for _ in range(2 * count)]
    kinds = (_repeated, _menu, _numbers)
    questions = [_sentence(words, code, chance, (9, 30)) for _ in range(count)]
    hosts = [_document(words, code, chance).split("\n") for _ in questions]
    return {
        "prose": ["\n".join(paragraphs), *documents[:count]],
        "rubbish": [kinds[number % len(kinds)](words, code, chance) for number in range(count)],
        "pairs": _pairs(documents[count:], words, code, chance),
        "questions": questions,
        "leaking": ["\n".join([*host[:3], asked, *host[3:]]) for asked, host in zip(questions, hosts, strict=True)],
        "innocent": ["\n".join(host) for host in hosts],
    }


def _words(paragraphs: Sequence[str], code: str, chance: random.Random) -> list[str]:
    if code not in UNSPACED:
        edges = ".,;:!?()\"'«»„“”।،؛-"
        return [word for word in (word.strip(edges) for text in paragraphs for word in text.split()) if word]
    from kindling_dataprep.steps.words import plain_words_of

    pieces = []
    for text in paragraphs:
        characters = plain_words_of(text)
        while characters:
            length = chance.randint(1, 3) * (2 if code == "th" else 1)
            pieces.append("".join(characters[:length]))
            characters = characters[length:]
    return pieces


def _sentence(words: Sequence[str], code: str, chance: random.Random, length: tuple[int, int] = (10, 24)) -> str:
    between = "" if code in UNSPACED else " "
    return between.join(chance.choices(words, k=chance.randint(*length))) + ENDS.get(code, ".")


def _document(words: Sequence[str], code: str, chance: random.Random) -> str:
    lines = [[_sentence(words, code, chance) for _ in range(chance.randint(1, 3))] for _ in range(10)]
    return "\n".join(("" if code in ("ja", "zh") else " ").join(line) for line in lines)


def _repeated(words: Sequence[str], code: str, chance: random.Random) -> str:
    return "\n".join([_sentence(words, code, chance)] * 30)


def _menu(words: Sequence[str], code: str, chance: random.Random) -> str:
    return "\n".join(word.title() for word in chance.sample(words, min(60, len(words))))


def _numbers(words: Sequence[str], code: str, chance: random.Random) -> str:
    return " ".join(
        f"{word} {chance.randrange(10**6)} | {chance.randrange(100)} %" for word in chance.choices(words, k=80)
    )


def _pairs(documents: Sequence[str], words: Sequence[str], code: str, chance: random.Random) -> list[tuple[str, str]]:
    """Each document beside one in which some words are others, of which those that are similar enough are taken."""
    from kindling_dataprep.steps.shingles import shingle_set

    pairs = []
    for document in documents:
        altered = document
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(altered))
            place = max(altered.rfind(" ", 0, place), altered.rfind("\n", 0, place), 0) if " " in altered else place
            altered = f"{altered[:place]} {chance.choice(words)} {altered[place:]}"
        one, other = shingle_set(document, 5), shingle_set(altered, 5)
        if len(one & other) / len(one | other) >= SIMILARITY:
            pairs.append((document, altered))
    return pairs


def _rules(code: str) -> dict[str, Any] | None:
    """FineWeb-2's thresholds and stop words; none for English."""
    from kindling_dataprep.steps.languages import language_rules

    if code not in language_rules():
        return None
    rules = language_rules()[code]
    return {
        "stopWords": sorted(rules.stop_words),
        **{name: value for (_, name, _), value in rules.thresholds.items()},
    } | {
        "minMeanWordLength": rules.thresholds["gopherQuality", "meanWordLength", True],
        "maxMeanWordLength": rules.thresholds["gopherQuality", "meanWordLength", False],
    }


def _asked(texts: dict[str, Any]) -> dict[str, int]:
    names = {"prose": "prose", "rubbish": "rubbish", "pairs": "pairs", "leaks": "leaking", "alarms": "innocent"}
    return {count: len(texts[name]) for count, name in names.items()}


def _show(figures: dict[str, Any]) -> None:
    headings = ("prose kept", "rubbish removed", "pairs found", "leaks found", "false alarms")
    print(f"{'':<12}" + "".join(f"{heading:>18}" for heading in headings))
    for code in CODES:
        for side in ("ours", "datatrove"):
            if side in figures:
                row = figures[side][code]
                cells = (f"{row[count]} of {figures['asked'][code][count]}" for count in COUNTS)
                print(f"{code} {side:<9}" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    main()
