"""`--set NAME:FIELD.PATH=VALUE`."""

from __future__ import annotations

from typing import Any

import pytest

from kindling_api.errors import SpecError
from kindling_cli.overrides import parse, put


@pytest.mark.parametrize(
    ("text", "document", "path", "value"),
    [
        ("tiny:spec.seed=1", "tiny", ("spec", "seed"), 1),
        ("PretrainRun/tiny:spec.training.steps=2K", "PretrainRun/tiny", ("spec", "training", "steps"), "2K"),
        ("web:spec.sources[0].uri=a=b:c.txt", "web", ("spec", "sources", 0, "uri"), "a=b:c.txt"),
        ("tiny:spec.rate=6e-4", "tiny", ("spec", "rate"), 6e-4),
        ("tiny:spec.validation={tail: 0.1}", "tiny", ("spec", "validation"), {"tail": 0.1}),
        ("tiny:spec.filters=[]", "tiny", ("spec", "filters"), []),
        ("tiny:spec.image=", "tiny", ("spec", "image"), None),
        ("tiny:spec.name='5'", "tiny", ("spec", "name"), "5"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_values_are_typed_as_in_yaml(text: str, document: str, path: tuple[str | int, ...], value: Any) -> None:
    override = parse(text)
    assert (override.document, override.path, override.value) == (document, path, value)


@pytest.mark.parametrize("text", ["", "steps=1", "tiny:steps=1", "tiny:spec.steps", ":spec.steps=1", "tiny:spec=1"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(SpecError) as error:
        parse(text)
    assert str(error.value) == (
        f"--set: found {text!r}; allowed: NAME:FIELD.PATH=VALUE, as in DatasetBuild/web:spec.sources[0].uri=./texts. "
        "To fix it: write the document's name, a colon, the field's path from spec on, and =VALUE."
    )


def test_maps_on_the_way_are_made_and_the_original_stays() -> None:
    tree = {"spec": {"training": {"steps": 1}}}
    assert put(tree, parse("tiny:spec.training.batch.tokens=64")) == {
        "spec": {"training": {"steps": 1, "batch": {"tokens": 64}}}
    }
    assert tree == {"spec": {"training": {"steps": 1}}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "web:spec.sources[1].uri=x",
            "--set web:spec.sources[1].uri: found a list of 1; allowed: a list with a position 1. "
            "To fix it: count positions from 0, or set the whole list: =[…].",
        ),
        (
            "web:spec.sources.uri=x",
            "--set web:spec.sources.uri: found a list before .uri; allowed: a map there. "
            "To fix it: name a position, as in sources[0].uri.",
        ),
        (
            "web:spec.seed.deep=x",
            "--set web:spec.seed.deep: found 7 before .deep; allowed: a map there. To fix it: set the whole map: ={…}.",
        ),
    ],
    ids=["beyond the list's end", "a list taken for a map", "a number taken for a map"],
)
def test_a_path_that_leads_nowhere_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        put({"spec": {"sources": [{"uri": "a"}], "seed": 7}}, parse(text))
    assert str(error.value) == message
