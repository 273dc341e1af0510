"""What is toxic scores high and prose low; n-grams are those of a plain reference; what is no model is refused."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from kindling_api.errors import SpecError
from kindling_storage import open_store
from kindling_toxicity import model
from kindling_toxicity.model import PASSAGE, Model, fetch, load
from kindling_toxicity.ngrams import BUCKETS, CHARACTERS, WORDS, ngrams
from kindling_toxicity.patterns import PATTERNS, UNKNOWN, Patterns

SHAKESPEARE = Path(__file__).parents[4] / "shared/data/tinyshakespeare/input.txt"


@pytest.fixture(scope="module")
def builtin() -> Model:
    return model.builtin()


def test_the_built_in_model_is_what_a_specification_calls_so(builtin: Model) -> None:
    assert fetch("builtin", open_store) == builtin.to_bytes()


@pytest.mark.parametrize(
    ("kept", "removed"),
    [
        ("The bird sang in the tree until the evening.", "you stupid bitch shut the fuck up"),
        ("def close(self):\n    self.file.close()", "all these hoes are trash and you are a faggot"),
        ("The cockerel of the village crows before anyone is awake.", "@you what a fucking retard lol"),
        ("Thou art a boil, a plague sore, an embossed carbuncle.", "fuck you, you dumb cunt"),
        ("She has 12 eggs and sells 3. How many are left?", "I hate niggas like you, bitch ass nigga"),
    ],
    ids=["prose", "program", "a word inside a word", "an old insult", "mathematics"],
)
def test_insults_score_high_and_what_looks_like_them_low(builtin: Model, kept: str, removed: str) -> None:
    harmless, toxic = builtin.scores([kept, removed])
    assert harmless < 0.5 < toxic


def test_a_long_text_has_the_mean_score_of_its_passages(builtin: Model) -> None:
    harmless, toxic = "a quiet day by the river " * 12, "you stupid bitch fuck you " * 12
    harmless, toxic = harmless[:PASSAGE], toxic[:PASSAGE]
    one, other, both = builtin.scores([harmless, toxic, harmless + toxic])
    assert both == pytest.approx((one + other) / 2)
    assert builtin.scores([toxic * 3]) == pytest.approx([other])


def test_a_score_does_not_depend_on_what_is_scored_beside_it(builtin: Model) -> None:
    texts = ["", " ", "a", "ab cd", "Ünïcödé ß 漢字", "x" * 1000, "the end"]
    together = builtin.scores(texts)
    assert [float(builtin.scores([text])[0]) for text in texts] == pytest.approx(together.tolist())
    assert len(builtin.scores([])) == 0


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="needs ../shared/data")
def test_plays_stay(builtin: Model) -> None:
    plays = SHAKESPEARE.read_text()
    unseen = plays[len(plays) // 2 :].split("\n\n")
    assert (builtin.scores(unseen) > 0.5).mean() <= 0.005
    assert builtin.scores([plays])[0] < 0.5


def plain_ngrams(text: str) -> set[bytes]:
    """What `ngrams` finds, by hand: runs of bytes with no space within, words marked by #, pairs by two."""
    data = bytes(c if c >= 128 or chr(c).isalnum() else 32 for c in f" {text} ".lower().encode())
    words = data.split()
    runs = {data[i : i + n] for n in CHARACTERS for i in range(len(data) - n + 1)}
    pairs = {b"##" + one + b" " + other for one, other in pairwise(words)}
    return {run for run in runs if b" " not in run[1:-1]} | {b"#" + word for word in words} | pairs


@pytest.mark.parametrize("texts", [["One two, two.", "two"], ["", "a-b"], ["aaaa aaaa aaaa"], ["ça va, ÇA VA!", "x y"]])
def test_ngrams_are_found_once_as_by_hand(texts: list[str]) -> None:
    found = ngrams(texts)
    assert found.buckets.min(initial=0) >= 0
    assert found.buckets.max(initial=0) < BUCKETS
    for number, text in enumerate(texts):
        assert len(set(found.buckets[found.texts == number].tolist())) == len(plain_ngrams(text))
    assert len(found.buckets) == sum(len(plain_ngrams(text)) for text in texts)


def test_equal_words_share_a_bucket_wherever_they_stand() -> None:
    found = ngrams(["tree", "a long way to the tree", "tree"])
    first, second, third = (set(found.buckets[found.texts == number].tolist()) for number in range(3))
    assert first == third
    assert first <= second


def test_the_file_of_a_model_holds_all_of_it(builtin: Model) -> None:
    data = builtin.to_bytes()
    again = load(data, "here")
    assert again.to_bytes() == data
    assert np.array_equal(again.weights, builtin.weights)
    assert len(data) < 3 << 20


def patterns_of(words: dict[int, tuple[float, float]]) -> Patterns:
    """One pattern that counts from 1 on and says 2 for each unit, of what the words are worth to it."""
    rows, says, least = np.zeros((2, WORDS, PATTERNS)), np.zeros(PATTERNS), np.zeros(PATTERNS)
    for word, worth in words.items():
        rows[:, word, 0] = worth
    says[0], least[0] = 2, 1
    return Patterns(rows.astype(np.float32), least.astype(np.float32), says.astype(np.float32))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("you fool", 2 * (3 - 1)),
        ("well YOU, fool! indeed", 2 * (3 - 1)),
        ("fool you", 2 * (1.5 - 1)),  # "you" is the first of two that end with the text
        ("fool", 0),
        ("you kind fool", 2 * (1.5 - 1)),
        ("you fool, you fool", 2 * (3 - 1)),
        ("fool\nyou", 2 * (1.5 - 1)),
        ("", 0),
        ("...", 0),
    ],
)
def test_a_pattern_says_how_far_its_best_pair_of_neighbours_matches(text: str, says: float) -> None:
    you, fool = ngrams(["you fool"]).words
    patterns = patterns_of({you: (1.5, 0), fool: (0, 1.5)})
    beside = ["fool fool", text, "", "you fool"]
    assert patterns.logits(ngrams([text]), 1) == pytest.approx([says])
    assert patterns.logits(ngrams(beside), 4)[1] == pytest.approx(says)
    assert patterns.times(0.5).logits(ngrams([text]), 1) == pytest.approx([says / 2])


def test_the_built_in_model_knows_some_words_and_others_are_worth_nothing(builtin: Model) -> None:
    (known,) = ngrams(["stupid"]).words
    assert builtin.patterns.rows[:, known].any()
    assert not builtin.patterns.rows[:, UNKNOWN].any()


def archive(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def model_of(**different: object) -> bytes:
    """A file with one thing in it that is not as it should be."""
    nothing = {"weights": np.zeros(BUCKETS), **vars(patterns_of({})), "bias": 0.0}
    return archive(format=3, **{**nothing, **different})


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "no model"),
        (b"PK\x03\x04 torn", "no model"),
        (archive(weights=np.zeros(3)), "no model"),
        (archive(format=3, bias=0.0, weights=np.array([{}])), "no model"),
        (archive(format=2, bias=0.0, weights=np.zeros(BUCKETS)), "a model of format 2"),
        (archive(format=3, bias=0.0, weights=np.zeros(BUCKETS)), "no model"),
        (model_of(weights=np.zeros(3)), "a model with weights (3,)"),
        (model_of(weights=np.full(BUCKETS, np.nan)), "weights that are no numbers"),
        (model_of(bias=np.inf), "weights that are no numbers"),
    ],
    ids=["empty", "torn", "something else", "pickled", "old", "no patterns", "another size", "not a number", "endless"],
)
def test_what_is_no_model_is_refused(data: bytes, found: str) -> None:
    with pytest.raises(SpecError, match=r"^spec\.toxicity\.model: found ") as caught:
        load(data, "here")
    assert found in str(caught.value)


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"spec\.toxicity\.model: found nothing at"):
        fetch(str(tmp_path), open_store)
