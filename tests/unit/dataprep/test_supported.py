"""What this version cannot do is refused with the field's place, and never silently left out."""

import json
from typing import Any

import pytest

from kindling_api.errors import SpecError
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.filters import Filter
from kindling_dataprep.steps.language import languages
from kindling_dataprep.supported import check_supported


def spec_of(fields: dict[str, Any]) -> DatasetBuildSpec:
    return DatasetBuildSpec.model_validate_json(json.dumps({"sources": [{"uri": "builtin:python-stdlib"}], **fields}))


FILTERS = [field.alias for field in Filter.model_fields.values()]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"filters": []},
        {"filters": [{name: {}} for name in FILTERS]},
        {"deduplicate": {"minHash": {"keep": "best"}}, "filters": [{"spam": {}}]},
        {"toxicity": {"threshold": 0.8}},
        {"decontaminate": [{"uri": "s3://evals/a.jsonl"}]},
    ],
    ids=["defaults", "no filters", "every rule set", "keep the best", "toxicity", "decontaminate"],
)
def test_what_this_version_does_is_accepted(fields: dict[str, Any]) -> None:
    check_supported(spec_of(fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"filters": [{"formatting": {}}, {"language": {"keep": ["en", "xx", "eng"]}}]},
            "spec.filters[1].language.keep: found xx, eng; allowed: languages that are told apart: "
            f"{', '.join(languages())}. To fix it: use their codes.",
        ),
    ],
    ids=["unknown languages"],
)
def test_what_this_version_cannot_do_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as raised:
        check_supported(spec_of(fields))
    assert str(raised.value) == message
