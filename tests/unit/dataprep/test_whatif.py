"""What `whatif` says is what a build with these thresholds then does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_cli.main import app
from kindling_dataprep.build import build
from kindling_dataprep.output import ledger
from kindling_dataprep.tracker import Tracker
from kindling_dataprep.whatif import STAYS, Setting, ask, excerpts, tokens_of
from kindling_runtime.progress import ProgressWriter
from kindling_storage import ObjectStore, open_store
from kindling_storage.commit import read_manifest

WORDS = re.findall(r"\w+", "the cat and a dog have been to the end of that road with nobody else in sight but you")
FORM = {"deduplicate": {"exact": False}, "tokenizer": {"byte": {}}, "validation": {"fraction": 0.0}}
FILTERS = {
    "formatting": {},
    "language": {"minScore": 0.0},
    "gopherQuality": {"minWords": 8, "minStopWords": 2},
    "fineWeb": {"minPunctuatedLineFraction": 0.5},
}


@pytest.fixture
def records(tmp_path: Path) -> Path:
    texts = [" ".join(WORDS[:number]) + ("." if number % 3 else "") for number in range(1, len(WORDS))]
    texts += ["you are a stupid idiot and i hate all of you with that face of yours", "Der Hund und die Katze. " * 4]
    (tmp_path / "records.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return tmp_path / "records.jsonl"


def run(file) -> tuple[ObjectStore, DatasetManifest]:
    store = open_store(build(file, Tracker(ProgressWriter(None))).uri)
    manifest = read_manifest(store, DatasetManifest)
    assert manifest is not None
    return store, manifest


def as_list(filters: dict) -> list[dict]:
    return [{name: settings} for name, settings in filters.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        [Setting("gopherQuality", "minWords", 3), Setting("fineWeb", "minPunctuatedLineFraction", 0.0)],
        [Setting("language", "keep", ["en", "de"])],
        [Setting("toxicity", "threshold", 0.1), Setting("gopherQuality", "minStopWords", 0)],
    ],
    ids=lambda settings: " ".join(map(str, settings)),
)
def test_the_answer_is_what_a_build_does(records: Path, new_run, settings: list[Setting]) -> None:
    store, manifest = run(new_run(records, filters=as_list(FILTERS), toxicity={}, **FORM))
    answer = ask(store, manifest, settings)
    filters, toxicity = {name: dict(each) for name, each in FILTERS.items()}, {}
    for setting in settings:
        ({"toxicity": toxicity} | filters)[setting.rule][setting.name] = setting.value
    other, built = run(new_run(records, filters=as_list(filters), toxicity=toxicity, store="other", **FORM))
    then = dict(answer.then)
    # What no rule lets through has no score yet, and may prove toxic once it is let through.
    newly_toxic = built.documents.removed.get("toxicity", 0) - then.get("toxicity", 0)
    assert newly_toxic == 0 or any(setting.rule != "toxicity" for setting in settings)
    assert then.pop(STAYS) - newly_toxic == built.documents.kept
    assert then | {"toxicity": built.documents.removed.get("toxicity", 0)} == {"toxicity": 0} | built.documents.removed
    before = {row["id"] for row in ledger.read_kept(store, ["id"]).to_pylist()}
    after = {row["id"] for row in ledger.read_kept(other, ["id"]).to_pylist()}
    assert set(answer.going) == before - after
    assert tokens_of(store, answer.going)[0] == len(answer.going)
    assert len(excerpts(store, answer.going)) == len(answer.going)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (Setting("gopherQuality", "minWord", 5), "did you mean gopherQuality.minWords?"),
        (
            Setting("spam", "maxLinkFraction", 0.1),
            "--set spam.maxLinkFraction: found no threshold that this dataset was",
        ),
        (Setting("gopherQuality", "minWords", "many"), "--set gopherQuality.minWords: found 'many'; allowed: "),
        (
            Setting("fineWeb", "minPunctuatedLineFraction", 2),
            "--set fineWeb.minPunctuatedLineFraction: found 2; allowed:",
        ),
    ],
    ids=["misspelt", "a rule that was not built with", "no number", "out of range"],
)
def test_what_cannot_be_tried_is_refused(records: Path, new_run, setting: Setting, message: str) -> None:
    store, manifest = run(new_run(records, filters=as_list(FILTERS), **FORM))
    with pytest.raises(SpecError) as caught:
        ask(store, manifest, [setting])
    assert message in str(caught.value)


@pytest.mark.slow
def test_the_command_shows_counts_and_examples(records: Path, new_run, tmp_path: Path) -> None:
    run(new_run(records, filters=as_list(FILTERS), **FORM))
    arguments = [
        "whatif",
        "test",
        "--store",
        str(tmp_path / "store"),
        "--set",
        "gopherQuality.minWords=12",
        "--limit",
        "2",
    ]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    assert "− gopherQuality" in done.output
    assert "would go" in done.output
    assert done.output.count("goes ") == 2
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
    assert answer["going"]["documents"] == answer["going"]["inDataset"] == len(answer["changes"])
    assert answer["now"]["stays"] - answer["then"]["stays"] == answer["going"]["documents"]
