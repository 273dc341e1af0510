"""What the chart installs: in full in golden/, which `make golden` writes anew, and point by point."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kindling_api import __version__
from kindling_api.crds import path_of
from kindling_api.documents import KINDS, parse
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render import render
from kindling_operator.render.serving import serving_objects
from kindling_operator.settings import Settings

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "charts" / "kindling"
CASES = sorted(path.stem for path in (HERE / "values").glob("*.yaml"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # the first test may build Helm

Object = dict[str, Any]
Objects = Callable[..., list[Object]]


def one(items: list[Object], kind: str, name: str = "") -> Object:
    """The only object of a kind, or the only one of a name."""
    (found,) = [item for item in items if item["kind"] == kind and name in ("", item["metadata"]["name"])]
    return found


def settings_of(items: list[Object]) -> Settings:
    return Settings.model_validate_json(one(items, "ConfigMap")["data"]["settings.json"])


@pytest.mark.parametrize("case", CASES)
def test_lint_finds_nothing(helm: Any, case: str) -> None:
    done = helm("lint", "--strict", str(CHART), "--values", str(HERE / "values" / f"{case}.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_what_is_installed_is_the_golden_file(template: Callable[..., str], case: str) -> None:
    golden = HERE / "golden" / f"{case}.yaml"
    text = template(HERE / "values" / f"{case}.yaml", "--set", "crds.enabled=false")
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), "run `make golden`, and read the difference"


def test_definitions_are_installed_as_generated_and_outlive_the_release(objects: Objects) -> None:
    installed = [item for item in objects({}) if item["kind"] == "CustomResourceDefinition"]
    assert {item["metadata"]["annotations"]["helm.sh/resource-policy"] for item in installed} == {"keep"}
    generated = [yaml.safe_load(path_of(kind).read_text(encoding="utf-8")) for kind in KINDS]
    by_name = {item["metadata"]["name"]: item["spec"] for item in installed}
    assert by_name == {item["metadata"]["name"]: item["spec"] for item in generated}


@pytest.mark.parametrize("case", CASES)
def test_the_operator_understands_its_settings(objects: Objects, case: str) -> None:
    items = objects(HERE / "values" / f"{case}.yaml")
    operator = one(items, "Deployment")["spec"]["template"]
    settings = settings_of(items)
    assert settings.namespace == "kindling"
    assert settings.operator_labels.items() <= operator["metadata"]["labels"].items()


def test_settings_name_images_storage_and_namespaces(objects: Objects) -> None:
    settings = settings_of(objects(HERE / "values" / "production.yaml"))
    assert settings.images.trainer == f"registry.example.com/mirror/kindling-trainer:{__version__}"
    assert settings.images.dataprep == f"registry.example.com/mirror/kindling-dataprep:{__version__}"
    assert settings.images.pull_secrets == ("registry",)
    assert settings.rewards.allowed_modules == ("team.rewards",)
    assert settings.hugging_face.endpoint == "https://hub.example.com"
    assert settings.storage == StorageSpec(
        uri="s3://llm/products",
        endpoint="https://s3.example.com",
        region="eu-central-1",
        credentials_secret="kindling-storage",
    )
    assert (settings.namespaces, settings.scraper_namespace, settings.lost_node_seconds) == ((), "monitoring", 5)


@pytest.mark.parametrize(
    ("values", "storage"),
    [
        ({}, None),
        ({"storage": {"uri": "s3://b"}}, StorageSpec(uri="s3://b")),
        (
            {"storage": {"uri": "s3://b/p", "existingSecret": "mine"}},
            StorageSpec(uri="s3://b/p", credentials_secret="mine"),
        ),
        (
            {"minio": {"enabled": True, "bucket": "llm"}},
            StorageSpec(
                uri="s3://llm",
                endpoint="http://kindling-minio.kindling.svc.cluster.local:9000",
                credentials_secret="kindling-storage",
            ),
        ),
        ({"minio": {"enabled": True}, "storage": {"uri": "s3://b"}}, StorageSpec(uri="s3://b")),
    ],
    ids=["none", "anonymous", "a Secret that exists", "MinIO", "MinIO beside another"],
)
def test_the_default_storage_is_the_one_given_or_minio(objects: Objects, values: Object, storage: StorageSpec) -> None:
    assert settings_of(objects(values)).storage == storage


@pytest.mark.parametrize(
    ("values", "namespaces"),
    [
        ({}, ["kindling"]),
        ({"watch": {"namespaces": ["a", "b"]}}, ["a", "b"]),
        ({"watch": {"cluster": True}}, []),
        ({"watch": {"cluster": True}, "storage": {"namespaces": ["a"]}}, ["a"]),
    ],
    ids=["its own", "those watched", "none", "those listed"],
)
def test_the_stores_key_is_in_each_namespace_with_runs(objects: Objects, values: Object, namespaces: list[str]) -> None:
    key = {"uri": "s3://b", "credentials": {"accessKeyId": "id", "secretAccessKey": "secret"}}
    items = objects({**values, "storage": {**key, **values.get("storage", {})}})
    secrets = [item for item in items if item["kind"] == "Secret"]
    assert [(item["metadata"]["name"], item["metadata"]["namespace"]) for item in secrets] == [
        ("kindling-storage", namespace) for namespace in namespaces
    ]
    assert all(item["stringData"] == {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"} for item in secrets)


def test_a_key_that_is_made_is_the_same_for_minio_and_its_users(objects: Objects) -> None:
    values = {"minio": {"enabled": True}, "watch": {"namespaces": ["a", "b"]}}
    root, *users = (item["stringData"] for item in objects(values) if item["kind"] == "Secret")
    assert len(root["password"]) == 32
    expected = {"AWS_ACCESS_KEY_ID": root["user"], "AWS_SECRET_ACCESS_KEY": root["password"]}
    assert users == [expected, expected]


def test_changed_settings_restart_the_operator_and_nothing_else_does(objects: Objects) -> None:
    def pod(values: Object) -> str:
        return json.dumps(one(objects(values), "Deployment")["spec"]["template"])

    assert pod({}) == pod({"metrics": {"monitors": {"enabled": True}}})
    assert pod({}) != pod({"runs": {"lostNodeSeconds": 60}})


def test_prometheus_is_led_to_every_pod_with_figures_and_let_in(objects: Objects) -> None:
    values: Object = {"metrics": {"scraperNamespace": "monitoring", "monitors": {"enabled": True}}}
    items = objects({**values, "storage": {"uri": "s3://b", "existingSecret": "store"}, "crds": {"enabled": False}})
    settings, monitor = settings_of(items), one(items, "PodMonitor")["spec"]
    scraped = {endpoint["port"] for endpoint in monitor["podMetricsEndpoints"]}
    spec = {"base": {"uri": "s3://b/m"}, "method": {"sft": {}}, "data": [{"uri": "s3://b/d.jsonl"}], "serve": {}}
    resource = {"apiVersion": "kindling.dev/v1alpha1", "kind": "AlignmentRun", "spec": spec}
    resource["metadata"] = {"name": "first", "namespace": "kindling", "uid": "1"}
    run, storage = parse(resource), settings.storage
    assert isinstance(run, AlignmentRun) and storage is not None
    run_file = resolve(run, storage=storage, finished={})
    assert not isinstance(run_file, Waiting)
    training = [*render(settings, resource, run_file).apply, *render(settings, resource, run_file).create]
    serving = serving_objects(settings, resource, run, "s3://b/models/1/model", storage)
    for made, kind, port in ((training, "Job", "progress"), (serving, "Deployment", "http")):
        pod = one(made, kind)["spec"]["template"]
        (found,) = [each for each in pod["spec"]["containers"][0]["ports"] if each["name"] == port]
        selected = {each["key"] for each in monitor["selector"]["matchExpressions"]}
        assert port in scraped and selected <= pod["metadata"]["labels"].keys()
        scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        rules = [rule for rule in one(made, "NetworkPolicy")["spec"]["ingress"] if scraper in rule["from"]]
        assert [rule["ports"] for rule in rules] == [[{"protocol": "TCP", "port": found["containerPort"]}]]


@pytest.mark.parametrize(
    ("release_values", "name"),
    [({}, "kindling"), ({"fullnameOverride": "llm"}, "llm")],
    ids=["the release's", "the one given"],
)
def test_everything_is_named_after_one_name(objects: Objects, release_values: Object, name: str) -> None:
    items = objects({**release_values, "minio": {"enabled": True}, "crds": {"enabled": False}})
    assert [item["metadata"]["name"] for item in items if name not in item["metadata"]["name"]] == []
    assert one(items, "Deployment")["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, ["watches the namespace kindling.", "--namespace kindling apply -f examples/", "no default storage"]),
        ({"watch": {"namespaces": ["a", "b"]}}, ["watches the namespaces a, b.", "--namespace a apply"]),
        ({"watch": {"cluster": True}}, ["watches all namespaces.", "--namespace default apply"]),
        ({"storage": {"uri": "s3://b", "existingSecret": "mine"}}, ["Secret mine, which must be in each namespace"]),
        ({"watch": {"cluster": True}, "minio": {"enabled": True}}, ["list those with runs in storage.namespaces"]),
        ({"minio": {"enabled": True, "persistence": {"enabled": False}}}, ["gone with the pod"]),
        ({}, ["load them onto the nodes", "push them to a registry of yours"]),
    ],
)
def test_notes_say_the_next_command_and_what_is_missing(
    template: Callable[..., str], tmp_path: Path, values: Object, said: list[str]
) -> None:
    shutil.copytree(CHART, tmp_path / "chart")
    notes = (tmp_path / "chart" / "templates" / "NOTES.txt").read_text(
        encoding="utf-8"
    )  # Helm shows only what it installs
    shown = '{{ define "notes" }}' + notes + '{{ end }}notes: {{ include "notes" . | toJson }}\n'
    (tmp_path / "chart" / "templates" / "shown.yaml").write_text(shown, encoding="utf-8")
    text = template(values, "--show-only", "templates/shown.yaml", chart=tmp_path / "chart")
    assert [line for line in said if line not in yaml.safe_load(text)["notes"]] == []
