"""A classifier is learnt from labelled texts; what is toxic goes, and every score is accounted for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kindling_api.errors import DataError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_cli.main import app
from kindling_dataprep.build import build
from kindling_dataprep.output import ledger, work
from kindling_dataprep.stages.toxicity import SCORES
from kindling_dataprep.tracker import Tracker
from kindling_runtime.progress import ProgressWriter
from kindling_storage import open_store
from kindling_storage.commit import read_manifest
from kindling_toxicity.model import builtin
from kindling_toxicity.ngrams import ngrams
from kindling_toxicity.training.examples import read_examples
from kindling_toxicity.training.patterns import learn_patterns
from kindling_toxicity.training.train import Examples, roc_auc, split, train


def examples() -> Examples:
    names = [f"{one}{other}" for one in ("bar", "lin", "mor", "tel") for other in ("do", "ka", "mi", "su", "vex")]
    texts = [
        f"the {name} is {kind} today {number}" for number in range(10) for name in names for kind in ("nice", "vile")
    ]
    return Examples(texts, np.array([float("vile" in text) for text in texts]))


@pytest.mark.slow
def test_what_was_learnt_separates_texts_that_were_held_out() -> None:
    known = examples()
    learning, calibrating, evaluating = split(known.texts)
    assert (learning.astype(int) + calibrating + evaluating == 1).all()
    held_out = known.take(evaluating)
    model = train(known.take(learning), known.take(calibrating))
    assert roc_auc(model.scores(held_out.texts), held_out.labels >= 0.5) == 1
    assert model.to_bytes() == train(known.take(learning), known.take(calibrating)).to_bytes()


def test_patterns_learn_what_no_sum_over_words_can_say() -> None:
    """Toxic is "so vile" and "too nice", harmless "so nice" and "too vile": no word, by itself, says anything."""
    names = [f"{one}{other}" for one in ("bar", "lin", "mor", "tel") for other in ("do", "ka", "mi", "su", "vex")]
    kinds = [("so", "vile", 1.0), ("too", "nice", 1.0), ("so", "nice", 0.0), ("too", "vile", 0.0)]
    known = [(f"the {name} is {how} {what} I say", label) for name in names * 5 for how, what, label in kinds]
    texts, labels = [text for text, _ in known], np.array([label for _, label in known])
    patterns = learn_patterns(texts, labels)
    assert roc_auc(patterns.logits(ngrams(texts), len(texts)).astype(float), labels > 0) > 0.99
    assert np.array_equal(patterns.rows, learn_patterns(texts, labels).rows)


def test_each_fifth_is_held_out_once() -> None:
    texts = examples().texts
    parts = [split(texts, fifth) for fifth in range(5)]
    assert (sum(held_out.astype(int) for _, _, held_out in parts) == 1).all()
    assert all((learning.astype(int) + calibrating + held_out == 1).all() for learning, calibrating, held_out in parts)


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
        ("{torn", "a.jsonl:1: found '{torn', which is no JSON"),
    ],
    ids=["label", "no label", "no text", "no json"],
)
def test_records_that_are_no_examples_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError) as caught:
        read_examples([tmp_path / "a.jsonl"], text="text", label="label", toxic=[])
    assert message in str(caught.value)


@pytest.mark.slow
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


def test_another_model_is_another_dataset(corpus: Path, tmp_path: Path, new_run) -> None:
    def key() -> str:
        file = new_run(corpus / "abc.py", tokenizer={"byte": {}}, toxicity={"model": str(tmp_path / "model.npz")})
        return build(file, Tracker(ProgressWriter(None))).uri

    (tmp_path / "model.npz").write_bytes(builtin().to_bytes())
    first = key()
    (tmp_path / "model.npz").write_bytes(builtin().calibrated(1, -1).to_bytes())
    assert key() != first
