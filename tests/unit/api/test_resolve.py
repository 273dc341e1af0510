from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kindling_api.base import canonical_json, key_of
from kindling_api.documents import KINDS, Document, parse
from kindling_api.errors import SpecError, WrongRunFileError
from kindling_api.references import Reference
from kindling_api.resolve import Finished, Waiting, content_of, resolve, shown_path, without_folders
from kindling_api.schema import Schema, structural_schema
from kindling_api.v1alpha1.resources import CONTENT_FREE_FIELDS
from kindling_api.v1alpha1.runfile import AlignmentRunFile, PretrainRunFile, RunFile, read_run_file
from kindling_api.v1alpha1.status import reason_of
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.versions import OWN_VERSION, STEP_VERSIONS, step_versions

Make = Callable[..., Document]

STORE = StorageSpec(uri="file:///store")
WEB = Finished(uri="file:///store/datasets/1", digest="sha256:" + "1" * 64)
TINY = Finished(uri="file:///store/models/2", digest="sha256:" + "2" * 64)
JUDGE = Finished(uri="s3://other/3", digest="sha256:" + "3" * 64, storage=StorageSpec(uri="s3://other"))
FINISHED = {
    Reference("DatasetBuild", "default", "web"): WEB,
    Reference("PretrainRun", "default", "tiny"): TINY,
    Reference("AlignmentRun", "default", "judge"): JUDGE,
}


def run_file(document: Document, **given: Any) -> RunFile:
    resolved = resolve(document, storage=STORE, finished=FINISHED, **given)
    assert not isinstance(resolved, Waiting)
    return resolved


def key(document: Document) -> str:
    return run_file(document).key


def test_a_run_waits_for_the_dataset_that_it_names(make: Make) -> None:
    resolved = resolve(make("PretrainRun"), storage=STORE, finished={})
    assert resolved == Waiting((Reference("DatasetBuild", "default", "web"),))


def test_a_run_file_holds_every_product_that_the_run_reads(make: Make) -> None:
    resolved = run_file(make("PretrainRun", initialize={"from": {"name": "tiny"}}), attempt=3)
    assert isinstance(resolved, PretrainRunFile)
    assert (resolved.dataset.uri, resolved.dataset.digest) == (WEB.uri, WEB.digest)
    assert resolved.initialize is not None and resolved.initialize.digest == TINY.digest
    assert (resolved.name, resolved.attempt, resolved.output) == ("x", 3, STORE)


def test_reward_models_come_in_the_order_of_the_spec(make: Make) -> None:
    rewards = [{"model": {"name": "judge"}}, {"exactAnswer": {}}, {"model": {"uri": "s3://m"}}]
    resolved = run_file(make("AlignmentRun", method={"grpo": {"rewards": rewards}}))
    assert isinstance(resolved, AlignmentRunFile)
    assert [(one.uri, one.digest, one.storage) for one in resolved.reward_models] == [
        (JUDGE.uri, JUDGE.digest, JUDGE.storage),
        ("s3://m", None, None),
    ]


def test_a_judge_of_answers_is_resolved_like_any_model(make: Make) -> None:
    resolved = run_file(make("AlignmentRun", evaluation={"prompts": ["a"], "judge": {"name": "judge"}}))
    assert isinstance(resolved, AlignmentRunFile) and resolved.judge is not None
    assert (resolved.judge.uri, resolved.judge.digest) == (JUDGE.uri, JUDGE.digest)


def test_a_storage_of_its_own_goes_before_the_default(make: Make) -> None:
    assert run_file(make("DatasetBuild", storage={"uri": "s3://mine"})).output == StorageSpec(uri="s3://mine")


def test_a_name_that_two_finished_runs_have_needs_a_kind(make: Make) -> None:
    both = {**FINISHED, Reference("AlignmentRun", "default", "tiny"): JUDGE}
    with pytest.raises(SpecError) as refusal:
        resolve(make("AlignmentRun"), storage=STORE, finished=both)
    assert str(refusal.value) == (
        "AlignmentRun/x: spec.base: found the name tiny, which a PretrainRun and an AlignmentRun have; allowed: one"
        " finished"
        " run. To fix it: add kind: PretrainRun or kind: AlignmentRun."
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_file_survives_being_written_and_read(kind: str, make: Make, tmp_path: Any) -> None:
    written = run_file(make(kind))
    path = tmp_path / "run.json"
    path.write_text(written.model_dump_json(by_alias=True, exclude_none=True), encoding="utf-8")
    assert read_run_file(path) == written


@pytest.mark.parametrize(
    ("uid", "key", "fits"),
    [
        (None, None, True),
        ("uid-1", None, True),
        ("uid-1", "its", True),
        ("uid-0", "its", False),
        ("uid-1", "sha256:" + 64 * "0", False),
    ],
)
def test_a_run_file_that_a_process_was_not_started_for_is_refused(
    uid: str | None, key: str | None, fits: bool, make: Make, tmp_path: Any
) -> None:
    document = make("PretrainRun")
    metadata = document.metadata.model_copy(update={"uid": "uid-1"})
    written = run_file(document.model_copy(update={"metadata": metadata}))
    assert written.uid == "uid-1"
    path = tmp_path / "run.json"
    path.write_bytes(canonical_json(written.document()))
    key = written.key if key == "its" else key
    if fits:
        assert read_run_file(path, uid=uid, key=key) == written
        return
    with pytest.raises(
        WrongRunFileError, match=rf"found the run file of .* with UID uid-1 and key {written.key}"
    ) as no:
        read_run_file(path, uid=uid, key=key)
    assert (no.value.exit_code, reason_of(no.value)) == (1, "WrongRunFile")


SAME: list[Any] = [
    pytest.param("PretrainRun", {"training": {"steps": 1000}}, {"training": {"steps": "1K"}}, id="count"),
    pytest.param(
        "PretrainRun", {"training": {"steps": 10}}, {"training": {"steps": 10, "skip": []}}, id="nothing left out"
    ),
    pytest.param(
        "PretrainRun", {"training": {"steps": 10}}, {"training": {"steps": 10, "documentMask": False}}, id="no mask"
    ),
    pytest.param(
        "AlignmentRun",
        {"method": {"grpo": {"rewards": [{"exactAnswer": {}}]}}},
        {"method": {"grpo": {"rewards": [{"exactAnswer": {}}], "estimator": "grpo", "maskCut": False}}},
        id="GRPO as it was",
    ),
    pytest.param(
        "PretrainRun",
        {"training": {"steps": 10, "skip": [{"first": 8, "count": 4}]}},
        {"training": {"steps": 10, "skip": [{"first": 10, "count": 2}, {"first": 8, "count": 3}]}},
        id="skip",
    ),
    pytest.param(
        "PretrainRun",
        {},
        {"training": {"steps": 10, "seed": 1337, "schedule": {"cosine": {}}}},
        id="defaults written out",
    ),
    pytest.param(
        "PretrainRun",
        {},
        {"training": {"steps": 10, "batch": {"tokens": 32 * 128, "microBatch": 4}, "activationCheckpointing": "full"}},
        id="batch written out, computed otherwise",
    ),
    pytest.param(
        "PretrainRun",
        {},
        {
            "model": {
                "architecture": "llama",
                "layers": 4,
                "heads": 4,
                "kvHeads": 2,
                "width": 128,
                "ffnWidth": 352,
                "context": 128,
                "tiedEmbeddings": True,
            }
        },
        id="preset and its sizes",
    ),
    pytest.param(
        "PretrainRun",
        {},
        {
            "parallelism": {"tensor": 2},
            "resources": {"nodes": 4, "memory": "9Gi"},
            "checkpoint": {"every": 7},
            "evaluation": {"every": 3},
            "restart": {"maxRestarts": 1},
            "suspend": True,
            "queue": "q",
            "storage": {"uri": "s3://b"},
            "huggingFace": {"tokenSecret": "hub"},
            "image": "mine",
            "retention": "Delete",
        },
        id="how, where and for how long",
    ),
    pytest.param("PretrainRun", {}, {"dataset": {"name": "web"}}, id="the same reference"),
    pytest.param(
        "DatasetBuild", {}, {"engine": {"workers": 9}, "badRecords": {"maxFraction": 1}}, id="engine and tolerance"
    ),
    pytest.param(
        "DatasetBuild",
        {"filters": [{"c4": {}}, {"formatting": {}}]},
        {"filters": [{"formatting": {"unicodeForm": "NFC"}}, {"c4": {}}]},
        id="order of rule sets",
    ),
    pytest.param(
        "DatasetBuild",
        {"sources": [{"uri": "s3://raw/a", "storage": {"region": "eu", "credentialsSecret": "lake"}}]},
        {"sources": [{"uri": "s3://raw/a", "storage": {"region": "eu"}}]},
        id="whose key opens a source",
    ),
    pytest.param("AlignmentRun", {}, {"serve": {"replicas": 2}}, id="serving"),
    pytest.param(
        "AlignmentRun",
        {"data": [{"uri": "/here/a.jsonl"}], "validation": {"data": [{"uri": "/here/b.jsonl"}]}},
        {"data": [{"uri": "/there/c/a.jsonl"}], "validation": {"data": [{"uri": "file:///there/b.jsonl"}]}},
        id="where local data lies, which the process that reads it looks into",
    ),
    pytest.param("AlignmentRun", {}, {"base": {"kind": "PretrainRun", "name": "tiny"}}, id="kind written out"),
]

DIFFERENT: list[Any] = [
    pytest.param(
        "PretrainRun",
        {"training": {"steps": 10, "keepBest": {}}},
        {"training": {"steps": 10, "keepBest": {}}, "evaluation": {"every": 3}},
        id="what the best is chosen among",
    ),
    pytest.param("PretrainRun", {}, {"training": {"steps": 11}}, id="steps"),
    pytest.param("PretrainRun", {}, {"training": {"steps": 10, "skip": [{"first": 8}]}}, id="skip"),
    pytest.param("PretrainRun", {}, {"training": {"steps": 10, "seed": 1}}, id="seed"),
    pytest.param("PretrainRun", {}, {"training": {"steps": 10, "precision": "fp32"}}, id="precision"),
    pytest.param("PretrainRun", {}, {"model": {"preset": "llama-tiny", "layers": 3}}, id="layers"),
    pytest.param("PretrainRun", {}, {"dataset": {"uri": "s3://d"}}, id="dataset"),
    pytest.param("PretrainRun", {}, {"initialize": {"from": {"uri": "m"}}}, id="initial weights"),
    pytest.param("DatasetBuild", {}, {"sources": [{"uri": "b"}]}, id="source"),
    pytest.param("DatasetBuild", {}, {"sources": [{"uri": "builtin:python-stdlib", "weight": 2}]}, id="weight"),
    pytest.param("DatasetBuild", {}, {"filters": []}, id="filters"),
    pytest.param("DatasetBuild", {}, {"deduplicate": {}}, id="near-duplicates stay"),
    pytest.param("DatasetBuild", {}, {"tokenizer": {"char": {}}}, id="tokenizer"),
    pytest.param("AlignmentRun", {}, {"method": {"dpo": {}}}, id="method"),
    pytest.param("AlignmentRun", {}, {"data": [{"uri": "s3://b/c.jsonl"}]}, id="data in a bucket"),
    pytest.param("AlignmentRun", {}, {"validation": {"data": [{"uri": "s3://b/c"}]}}, id="data that is held out"),
    pytest.param(
        "AlignmentRun",
        {"method": {"ppo": {"rewardModel": {"kind": "AlignmentRun", "name": "judge"}}}},
        {"method": {"ppo": {"rewardModel": {"name": "tiny"}}}},
        id="reward model",
    ),
    pytest.param(
        "AlignmentRun",
        {"evaluation": {"prompts": ["a"], "judge": {"kind": "AlignmentRun", "name": "judge"}}},
        {"evaluation": {"prompts": ["a"]}},
        id="judge",
    ),
]


@pytest.mark.parametrize(("kind", "one", "other"), SAME)
def test_two_ways_to_ask_for_one_result_have_one_key(kind: str, one: dict, other: dict, make: Make) -> None:
    assert key(make(kind, "a", **one)) == key(make(kind, "b", **other))


@pytest.mark.parametrize(("kind", "one", "other"), DIFFERENT)
def test_two_results_have_two_keys(kind: str, one: dict, other: dict, make: Make) -> None:
    assert key(make(kind, **one)) != key(make(kind, **other))


def test_another_dataset_of_the_same_name_gives_another_key(make: Make) -> None:
    rebuilt = {Reference("DatasetBuild", "default", "web"): Finished(uri=WEB.uri, digest="sha256:" + "9" * 64)}
    again = resolve(make("PretrainRun"), storage=STORE, finished=rebuilt)
    assert not isinstance(again, Waiting) and again.key != key(make("PretrainRun"))


def test_the_place_of_a_dataset_is_no_part_of_a_key(make: Make) -> None:
    moved = {Reference("DatasetBuild", "default", "web"): Finished(uri="s3://elsewhere", digest=WEB.digest)}
    again = resolve(make("PretrainRun"), storage=STORE, finished=moved)
    assert not isinstance(again, Waiting) and again.key == key(make("PretrainRun"))


def with_defaults(value: Any, schema: Schema) -> Any:
    """What an API server makes of a value: defaults filled in at every level (Kubernetes, structural defaulting)."""
    if isinstance(value, dict) and "properties" in schema:
        parts = schema["properties"]
        filled = value | {
            name: part["default"] for name, part in parts.items() if "default" in part and name not in value
        }
        return {name: with_defaults(item, parts[name]) for name, item in filled.items()}
    if isinstance(value, list):
        return [with_defaults(item, schema.get("items", {})) for item in value]
    return value


@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster_and_a_laptop_give_one_key(kind: str, make: Make) -> None:
    document = make(kind)
    short = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    full = short | {"spec": with_defaults(short["spec"], structural_schema(KINDS[kind])["properties"]["spec"])}
    assert full["spec"] == document.spec.document()
    assert key(parse(full)) == key(document)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(1, 10**9), unit=st.sampled_from([("K", 10**3), ("M", 10**6), ("Ki", 2**10), ("Mi", 2**20)]))
def test_a_count_with_a_unit_has_the_key_of_the_integer(count: int, unit: tuple[str, int], make: Make) -> None:
    word = make("DatasetBuild", shards={"tokensPerShard": f"{count}{unit[0]}"})
    number = make("DatasetBuild", shards={"tokensPerShard": count * unit[1]})
    assert key(word) == key(number)


def test_content_holds_no_field_that_does_not_affect_the_result(make: Make) -> None:
    aliases = {"badRecords"} | {name for name in CONTENT_FREE_FIELDS if "_" not in name}
    for kind in KINDS:
        assert not aliases & set(content_of(make(kind).spec))


def test_content_can_be_read_again_into_the_same_content(make: Make) -> None:
    document = make("DatasetBuild")
    again = make("DatasetBuild", **content_of(document.spec))
    assert content_of(again.spec) == content_of(document.spec)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("/home/me/books/*.jsonl", "books/*.jsonl"),
        ("file:///home/me/books/**/a[1].txt", "books/**/a[1].txt"),
        ("/home/me/books/one.txt", "one.txt"),
        ("/home/me/books/", "books"),
        ("/*.txt", "*.txt"),
        ("books", "books"),
        ("s3://raw/books/*.jsonl", "s3://raw/books/*.jsonl"),
        ("builtin:python-stdlib", "builtin:python-stdlib"),
        ("builtin", "builtin"),
    ],
)
def test_a_local_path_is_shown_without_the_folders_above_it(uri: str, shown: str) -> None:
    assert shown_path(uri) == shown
    assert shown_path(shown) == shown


def test_content_without_folders_can_be_read_again(make: Make) -> None:
    content = without_folders(content_of(make("DatasetBuild").spec))
    assert content_of(make("DatasetBuild", **content).spec) == content


UNASKED = OWN_VERSION | {"decontaminate", "lines", "toxicity"}
"""Steps that only a spec that names them applies."""


@pytest.mark.parametrize(
    ("spec", "left_out"),
    [
        pytest.param({}, UNASKED, id="defaults"),
        pytest.param(
            {
                "filters": [{name: {}} for name in sorted(OWN_VERSION)],
                "deduplicate": {"minHash": {}, "lines": {}},
                "toxicity": {},
                "decontaminate": [{"uri": "test.jsonl"}],
            },
            set(),
            id="everything",
        ),
        pytest.param({"deduplicate": {}}, UNASKED | {"minHash"}, id="exact only"),
        pytest.param({"deduplicate": {"exact": False}}, UNASKED | {"exact", "minHash"}, id="no deduplication"),
        pytest.param({"filters": []}, UNASKED | {"repair", "rules"}, id="no filters"),
    ],
)
def test_only_the_versions_of_steps_that_are_applied_count(spec: dict, left_out: set[str], make: Make) -> None:
    versions = step_versions(make("DatasetBuild", **spec).spec)  # type: ignore[arg-type]
    assert set(versions) == set(STEP_VERSIONS) - left_out


def test_a_key_does_not_depend_on_the_order_of_fields() -> None:
    assert key_of({"b": 1, "a": "ü"}) == key_of({"a": "ü", "b": 1})
