"""What is toxic goes, prose stays, and every score is accounted for; n-grams are those of a plain reference."""

from __future__ import annotations

import io
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kindling_api.errors import DataError, SpecError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_cli.main import app
from kindling_dataprep import ledger, work
from kindling_dataprep.build import build
from kindling_dataprep.classifier import Examples, roc_auc, split, train
from kindling_dataprep.labelled import read_examples
from kindling_dataprep.stages.toxicity import SCORES
from kindling_dataprep.steps.ngrams import BUCKETS, CHARACTERS, ngrams
from kindling_dataprep.steps.toxicity import PASSAGE, Model, fetch, load
from kindling_dataprep.tracker import Tracker
from kindling_storage import open_store
from kindling_storage.commit import read_manifest
from kindling_storage.progress import ProgressWriter

SHAKESPEARE = Path(__file__).parents[4] / "shared/data/tinyshakespeare/input.txt"


@pytest.fixture(scope="module")
def builtin() -> Model:
    return load(fetch("builtin", open_store), "builtin")


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
    assert len(data) < 1 << 20


def archive(**arrays: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "no model"),
        (b"PK\x03\x04 torn", "no model"),
        (archive(weights=np.zeros(3)), "no model"),
        (archive(format=2, bias=0.0, weights=np.array([{}])), "no model"),
        (archive(format=1, bias=0.0, weights=np.zeros(BUCKETS)), "a model of format 1"),
        (archive(format=2, bias=0.0, weights=np.zeros(3)), "a model of format 2 with weights (3,)"),
        (archive(format=2, bias=0.0, weights=np.full(BUCKETS, np.nan)), "weights that are no numbers"),
    ],
    ids=["empty", "torn", "something else", "pickled", "another format", "another size", "not a number"],
)
def test_what_is_no_model_is_refused(data: bytes, found: str) -> None:
    with pytest.raises(SpecError, match=r"^spec\.toxicity\.model: found ") as caught:
        load(data, "here")
    assert found in str(caught.value)


def test_a_model_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"spec\.toxicity\.model: found nothing at"):
        fetch(str(tmp_path), open_store)


def examples() -> Examples:
    names = [f"{one}{other}" for one in ("bar", "lin", "mor", "tel") for other in ("do", "ka", "mi", "su", "vex")]
    texts = [
        f"the {name} is {kind} today {number}" for number in range(10) for name in names for kind in ("nice", "vile")
    ]
    return Examples(texts, np.array([float("vile" in text) for text in texts]))


def test_what_was_learnt_separates_texts_that_were_held_out() -> None:
    known = examples()
    learning, calibrating, evaluating = split(known.texts)
    assert (learning.astype(int) + calibrating + evaluating == 1).all()
    held_out = known.take(evaluating)
    model = train(known.take(learning), known.take(calibrating))
    assert roc_auc(model.scores(held_out.texts), held_out.labels >= 0.5) == 1
    assert model.to_bytes() == train(known.take(learning), known.take(calibrating)).to_bytes()


@pytest.mark.parametrize(
    ("scores", "positive", "auc"),
    [([1, 2, 3], [0, 0, 1], 1.0), ([3, 2, 1], [0, 0, 1], 0.0), ([1, 1], [0, 1], 0.5), ([1, 2, 2], [0, 0, 1], 0.75)],
)
def test_roc_auc_counts_pairs_in_the_right_order(scores: list[int], positive: list[int], auc: float) -> None:
    assert roc_auc(np.array(scores, dtype=float), np.array(positive, dtype=bool)) == auc


@pytest.mark.parametrize(
    ("name", "content", "toxic"),
    [
        ("a.csv", 'text,label\n"one, two",0\nthree,1\n', []),
        ("a.csv", 'text,label\n"one, two",2\nthree,0\n', ["0", "1"]),
        ("a.jsonl", '{"text": "one, two", "label": 0}\n{"text": "three", "label": 1.0}\n', []),
    ],
    ids=["csv", "classes", "jsonl"],
)
def test_labelled_texts_are_read(tmp_path: Path, name: str, content: str, toxic: list[str]) -> None:
    (tmp_path / name).write_text(content)
    found = read_examples([tmp_path / name], text="text", label="label", toxic=toxic)
    assert (found.texts, found.labels.tolist()) == (["one, two", "three"], [0.0, 1.0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": 2}\n', "record 1: found 2 in 'label'; allowed: a number from 0 to 1, or --toxic"),
        ('{"text": "a"}\n', "record 1: found None in 'label'"),
        ('{"label": 1}\n', "record 1: found no text in 'text'"),
        ("{torn", "allowed: a CSV file with a header, or JSON lines"),
    ],
    ids=["label", "no label", "no text", "no json"],
)
def test_records_that_are_no_examples_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        read_examples([tmp_path / "a.jsonl"], text="text", label="label", toxic=[])
    assert message in str(caught.value)


def test_the_command_trains_a_model_that_a_build_uses(tmp_path: Path, new_run) -> None:
    known = examples()
    rows = [{"text": text, "label": label} for text, label in zip(known.texts, known.labels.tolist(), strict=True)]
    (tmp_path / "known.jsonl").write_text("\n".join(map(json.dumps, rows)))
    model = tmp_path / "model"
    done = CliRunner().invoke(app, ["toxicity", "train", str(tmp_path / "known.jsonl"), "--output", str(model)])
    assert done.exit_code == 0, done.output
    assert "ROC-AUC **1.0000**" in (model / "README.md").read_text()
    done = CliRunner().invoke(app, ["toxicity", "evaluate", str(tmp_path / "known.jsonl"), "--model", str(model)])
    assert "400 texts, 200 of them toxic: ROC-AUC **1.0000**" in done.output

    (tmp_path / "records.jsonl").write_text('{"text": "the cat is nice"}\n{"text": "the dog is vile"}\n')
    file = new_run(tmp_path / "records.jsonl", tokenizer={"byte": {}}, toxicity={"model": str(model)})
    store = open_store(build(file, Tracker(ProgressWriter(None))).uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    assert (manifest.documents.kept, manifest.documents.removed) == (1, {"toxicity": 1})
    (removed,) = ledger.read_removed(store).to_pylist()
    assert (removed["id"], removed["rule"], removed["measure"]) == ("0/records.jsonl#2", "toxicity", "score")
    assert removed["value"] > removed["threshold"] == 0.5
    scores = work.read_table(store, ledger.part_path(SCORES, 0)).to_pylist()
    assert [row["id"] for row in scores] == ["0/records.jsonl#1", "0/records.jsonl#2"]
    assert scores[1]["toxicity"] == pytest.approx(removed["value"])
    assert "toxicity" in store.get("report.html").decode()


def test_another_model_is_another_dataset(corpus: Path, tmp_path: Path, new_run, builtin: Model) -> None:
    def key() -> str:
        file = new_run(corpus / "abc.py", tokenizer={"byte": {}}, toxicity={"model": str(tmp_path / "model.npz")})
        return build(file, Tracker(ProgressWriter(None))).uri

    (tmp_path / "model.npz").write_bytes(builtin.to_bytes())
    first = key()
    (tmp_path / "model.npz").write_bytes(Model(builtin.weights, builtin.bias - 1).to_bytes())
    assert key() != first
