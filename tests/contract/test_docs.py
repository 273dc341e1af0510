"""The pages are complete, current, and point at what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import jsonschema
import pytest
import yaml

from kindling_api import reference
from kindling_api.documents import parse
from kindling_api.v1alpha1.alignment_method import Method
from kindling_api.v1alpha1.pod_template import PodTemplate
from kindling_api.v1alpha1.status import Reason
from kindling_api.v1alpha1.training import PretrainingSpec
from kindling_operator.allowances import refusals
from kindling_operator.settings import Allowed, Images, Settings

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/*/README.md")]
)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Git hosts make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_test_that_a_page_names_is_there() -> None:
    named = [
        (page.name, path, name)
        for page in PAGES
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text(encoding="utf-8"))
    ]
    assert len(named) > 30
    for page, path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), (page, path, name)


def links(page: Path) -> Iterator[tuple[str, str]]:
    """The links from a page to files here: path and anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def test_the_reference_is_what_the_specification_generates() -> None:
    assert reference.FILE.read_text(encoding="utf-8") == reference.text(), "run `make crds`"


def test_every_reason_of_a_condition_is_explained_once() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([A-Z]\w+)` \|", text.partition("## What a reason means")[2], flags=re.MULTILINE)
    assert sorted(explained) == sorted(get_args(Reason))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_to_a_file_leads_somewhere(page: Path) -> None:
    for path, anchor in links(page):
        target = page if not path else (page.parent / path).resolve()
        assert target.exists(), path
        assert not anchor or anchor in anchors(target), f"{path}#{anchor}"


def test_every_metric_that_is_worth_an_alert_exists() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    source = (ROOT / "operator" / "kindling_operator" / "metrics.py").read_text(encoding="utf-8")
    named = set(re.findall(r"\bkindling_[a-z_]+", text.partition("### Metrics")[2].partition("\n## ")[0]))
    assert [name for name in named if f'"{name.removesuffix("_total")}"' not in source] == []


def test_every_recipe_of_training_on_its_page_is_one() -> None:
    recipes = re.findall(r"```yaml\n(.+?)```", (ROOT / "docs" / "training.md").read_text("utf-8"), flags=re.DOTALL)
    assert recipes
    for recipe in map(yaml.safe_load, recipes):
        if "method" in recipe:
            Method.model_validate(recipe["method"], strict=False)
        else:
            PretrainingSpec.model_validate({"steps": 100} | recipe)


def test_the_pods_of_the_example_are_allowed_in_the_installation_beside_it_and_in_no_other() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    section = text.partition("\n## Pods\n")[2].partition("\n## ")[0]
    values, document = map(yaml.safe_load, re.findall(r"```yaml\n(.+?)```", section, flags=re.DOTALL))
    schema = json.loads((ROOT / "charts" / "kindling" / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(values, schema)
    images = Images(trainer="trainer:1", dataprep="dataprep:1", serve="serve:1")
    installation = Settings(
        images=images,
        pod_template=PodTemplate.model_validate_json(json.dumps(values["runs"]["podTemplate"])),
        allow=Allowed.model_validate_json(json.dumps(values["runs"]["allow"])),
    )
    spec = parse(document).spec
    assert list(refusals(spec, installation)) == []
    assert len(list(refusals(spec, Settings(images=images)))) == 3
