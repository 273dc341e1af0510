"""What a document names of the machine that would run it: no file of a pod, and only code that is allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kindling_api.documents import KINDS
from kindling_api.resolve import PATH_FIELDS
from kindling_api.v1alpha1.runfile import AlignmentRunFile, read_run_file
from kindling_operator.settings import HuggingFace, Images, Pods, Rewards

Make = Callable[..., Any]

CALLABLES = (Path(__file__).parents[3] / "contract" / "callables.txt").read_text().split()


def rewarded(cluster: Make, path: str, *modules: str, method: str = "grpo") -> Any:
    """A document with a function as its second reward, where these modules are allowed."""
    rewards = [{"exactAnswer": {}}, {"function": {"importPath": path}}]
    run = cluster("AlignmentRun", method={method: {"rewards": rewards}})
    run.settings = run.settings.model_copy(update={"rewards": Rewards(allowed_modules=modules)})
    return run


PRIORITIES = [
    ("none is allowed", "night", {}, (), "none without spec.queue"),
    ("another is allowed", "system-node-critical", {}, ("night", "day"), "night or day"),
    ("it is allowed", "night", {}, ("night",), None),
    ("it is one of Kueue's", "night", {"queue": "team-a"}, (), None),
]


@pytest.mark.parametrize(
    ("priority", "queue", "classes", "allowed"), [row[1:] for row in PRIORITIES], ids=[row[0] for row in PRIORITIES]
)
def test_pods_push_aside_others_only_by_a_class_that_the_installation_allows(
    cluster: Make, priority: str, queue: dict[str, str], classes: tuple[str, ...], allowed: str | None
) -> None:
    run = cluster(priority=priority, **queue)
    run.settings = run.settings.model_copy(update={"pods": Pods(priority_classes=classes)})
    run.reconcile()
    if allowed is None:
        assert run.said("Accepted") == ("True", "Valid")
    else:
        assert run.said("Accepted") == ("False", "InvalidSpec") and run.made == []
        assert run.message("Accepted").startswith(f"spec.priority: found {priority}; allowed: {allowed}")


@pytest.mark.parametrize("modules", [(), ("rewards", "team.maths")], ids=["none is allowed", "two are allowed"])
@pytest.mark.parametrize("path", CALLABLES)
def test_a_function_of_a_module_that_is_not_allowed_is_refused(
    cluster: Make, path: str, modules: tuple[str, ...]
) -> None:
    run = rewarded(cluster, path, *modules)
    run.reconcile()
    assert run.said("Accepted") == ("False", "InvalidSpec")
    allowed = "defined in rewards or team.maths" if modules else "none: the installation allows no module"
    message = run.message("Accepted")
    assert message.startswith(f"spec.method.grpo.rewards[1].function.importPath: found {path}; allowed: ")
    assert allowed in message and "rewards.allowedModules" in message
    assert run.made == []


@pytest.mark.parametrize("method", ["grpo", "ppo"])
def test_an_allowed_module_is_named_in_the_run_file_for_the_pod_to_check_again(
    cluster: Make, method: str, tmp_path: Path
) -> None:
    run = rewarded(cluster, "rewards.maths:score", "rewards", method=method)
    run.reconcile()
    assert run.said("Accepted") == ("True", "Valid")
    assert modules_of(run, tmp_path) == ("rewards",)


def test_a_run_without_a_function_gets_the_list_too(cluster: Make, tmp_path: Path) -> None:
    run = cluster("AlignmentRun")
    run.reconcile()
    assert modules_of(run, tmp_path) == ()  # none, and not any


def modules_of(run: Any, folder: Path) -> tuple[str, ...] | None:
    """What the only ConfigMap says."""
    (text,) = (item["data"]["run.json"] for key, item in run.objects.items() if key.kind == "ConfigMap")
    path = folder / "run.json"
    path.write_text(text)
    read = read_run_file(path)
    assert isinstance(read, AlignmentRunFile)
    return read.reward_modules


FILES = ["/proc/self/environ", "file:///proc/1/environ", "FILE:///etc/passwd", "../etc/kindling", "builtin:/../../proc"]
PLACES: list[tuple[str, str, Callable[[str], dict[str, Any]]]] = [
    ("DatasetBuild", "spec.sources[0].uri", lambda uri: {"sources": [{"uri": uri}]}),
    ("DatasetBuild", "spec.tokenizer.from.uri", lambda uri: {"tokenizer": {"from": {"uri": uri}}}),
    ("DatasetBuild", "spec.toxicity.model", lambda uri: {"toxicity": {"model": uri}}),
    ("DatasetBuild", "spec.decontaminate[0].uri", lambda uri: {"decontaminate": [{"uri": uri}]}),
    ("DatasetBuild", "spec.filters[0].adult.blocklist", lambda uri: {"filters": [{"adult": {"blocklist": uri}}]}),
    ("PretrainRun", "spec.dataset.uri", lambda uri: {"dataset": {"uri": uri}}),
    ("PretrainRun", "spec.initialize.from.uri", lambda uri: {"initialize": {"from": {"uri": uri}}}),
    ("AlignmentRun", "spec.base.uri", lambda uri: {"base": {"uri": uri}}),
    ("AlignmentRun", "spec.data[0].uri", lambda uri: {"data": [{"uri": uri}]}),
    ("AlignmentRun", "spec.validation.data[0].uri", lambda uri: {"validation": {"data": [{"uri": uri}]}}),
    (
        "AlignmentRun",
        "spec.method.ppo.rewardModel.uri",
        lambda uri: {"method": {"ppo": {"rewardModel": {"uri": uri}}}},
    ),
    (
        "AlignmentRun",
        "spec.evaluation.judge.uri",
        lambda uri: {"evaluation": {"prompts": ["Why?"], "judge": {"uri": uri}}},
    ),
]


@pytest.mark.parametrize("uri", FILES)
@pytest.mark.parametrize(("kind", "field", "spec"), PLACES, ids=[place[1] for place in PLACES])
def test_no_file_of_a_pod_can_be_named(
    cluster: Make, kind: str, field: str, spec: Callable[[str], dict[str, Any]], uri: str
) -> None:
    run = cluster(kind, **spec(uri))
    run.reconcile()
    assert run.said("Accepted") == ("False", "InvalidSpec")
    assert run.message("Accepted").startswith(f"{field}: found {uri}; allowed: s3://bucket/path")
    assert run.made == []


COMMIT = "0123456789abcdef0123456789abcdef01234567"
OF_THE_HUB = {
    "spec.sources[0].uri": "datasets/me/x{}/data/*.parquet",
    "spec.decontaminate[0].uri": "datasets/me/x{}",
    "spec.data[0].uri": "datasets/me/x{}/train.jsonl",
    "spec.validation.data[0].uri": "datasets/me/x{}",
    "spec.tokenizer.from.uri": "me/x{}/tokenizer.json",
}
"""What lies on the Hub at these fields; at others a model does, or nothing may."""
NOT_OF_THE_HUB = ("spec.toxicity.model", "spec.filters[0].adult.blocklist", "spec.dataset.uri")
ON_THE_HUB = [(*place, OF_THE_HUB.get(place[1], "me/x{}")) for place in PLACES if place[1] not in NOT_OF_THE_HUB]
each_place_on_the_hub = pytest.mark.parametrize(
    ("kind", "field", "spec", "place"), ON_THE_HUB, ids=[place[1] for place in ON_THE_HUB]
)


@each_place_on_the_hub
def test_a_commit_of_the_hub_may_be_named_wherever_models_and_data_may(
    cluster: Make, kind: str, field: str, spec: Callable[[str], dict[str, Any]], place: str
) -> None:
    run = cluster(kind, **spec("hf://" + place.format(f"@{COMMIT}")))
    run.reconcile()
    assert (run.said("Accepted"), len(run.made)) == (("True", "Valid"), 1)


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", "@refs%2Fpr%2F1", f"@{COMMIT[:7]}", f"@{COMMIT.upper()}"])
@each_place_on_the_hub
def test_what_moves_on_the_hub_is_refused_with_where_its_commit_is_told(
    cluster: Make, kind: str, field: str, spec: Callable[[str], dict[str, Any]], place: str, revision: str
) -> None:
    uri = "hf://" + place.format(revision)
    run = cluster(kind, **spec(uri))
    run.reconcile()
    assert (run.said("Accepted"), run.made) == (("False", "InvalidSpec"), [])
    asked = f"/api/{'datasets' if 'datasets' in uri else 'models'}/me/x/revision/{revision[1:] or 'main'}"
    assert run.message("Accepted") == (
        f"{field}: found {uri}; allowed: the 40 digits of a commit behind the @: a branch or a tag moves, and the "
        f"operator asks no Hub. To fix it: write the `sha` that https://huggingface.co{asked} tells."
    )


def test_a_commit_is_told_by_the_hub_of_the_installation(cluster: Make) -> None:
    run = cluster("AlignmentRun", base={"uri": "hf://me/tiny"})
    hub = HuggingFace(endpoint="https://hub.example.com/")
    run.settings = run.settings.model_copy(update={"hugging_face": hub})
    run.reconcile()
    assert "https://hub.example.com/api/models/me/tiny/revision/main tells" in run.message("Accepted")


def test_data_is_no_model(cluster: Make) -> None:
    run = cluster("AlignmentRun", base={"uri": f"hf://datasets/tiny@{COMMIT}"})
    run.reconcile()
    assert run.said("Accepted") == ("False", "InvalidSpec")
    assert "write both the owner and the name" in run.message("Accepted")


@pytest.mark.parametrize("uri", ["s3://raw/*.jsonl", "builtin:python-stdlib"])
def test_what_lies_in_a_store_or_comes_with_the_programs_may_be_named(cluster: Make, uri: str) -> None:
    run = cluster("DatasetBuild", sources=[{"uri": uri}], toxicity={})
    run.reconcile()
    assert run.said("Accepted") == ("True", "Valid")


def test_every_field_that_holds_a_uri_is_looked_at() -> None:
    names = {name for model in KINDS.values() for name in uri_fields(model.model_json_schema()["$defs"])}
    assert names and names <= PATH_FIELDS


def uri_fields(definitions: dict[str, Any]) -> Iterator[str]:
    """The names of all fields of the type `Uri`."""
    for definition in definitions.values():
        for name, schema in definition.get("properties", {}).items():
            for each in schema.get("anyOf", [schema]):
                if (each.get("minLength"), each.get("maxLength")) == (1, 1024) and name != "pattern":
                    yield name


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"image": "evil.example.com/x"}, "InvalidSpec", "begins with registry.example.com/ml/"),
        ({"storage": {"uri": "file:///tmp"}}, "InvalidSpec", "s3://bucket/prefix"),
    ],
)
def test_a_document_that_cannot_be_run_is_refused_with_what_to_change(
    cluster: Make, spec: dict[str, Any], reason: str, words: str
) -> None:
    run = cluster(**spec)
    run.reconcile()
    assert run.said("Accepted") == ("False", reason)
    assert words in run.message("Accepted")
    assert (run.status["phase"], run.status["attempt"], [event.reason for event in run.events]) == (
        "Failed",
        0,
        [reason],
    )


def test_without_any_store_a_run_is_refused_until_there_is_one(cluster: Make) -> None:
    run = cluster()
    settings, run.settings = run.settings, run.settings.model_copy(update={"storage": None})
    run.reconcile()
    assert run.said("Accepted") == ("False", "InvalidSpec")
    run.settings = settings
    run.reconcile()
    assert (run.said("Accepted"), run.status["attempt"]) == (("True", "Valid"), 1)


def test_a_run_that_was_accepted_stays_so_when_the_installation_changes(cluster: Make) -> None:
    run = cluster(image="registry.example.com/ml/trainer:7")
    run.run()
    run.settings = run.settings.model_copy(update={"images": Images(trainer="t", dataprep="d", serve="s")})
    run.reconcile()
    assert run.status["phase"] == "Running"
