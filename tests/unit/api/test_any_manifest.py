"""Whatever stands in a manifest, the loader takes it or says in sentences what is wrong."""

import copy
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kindling_api.documents import load, parse
from kindling_api.errors import SpecError
from kindling_api.yaml_source import read_yaml

TABLE = Path(__file__).parents[2] / "contract" / "manifests.yaml"
GOOD: list[dict[str, Any]] = read_yaml(TABLE.read_text(encoding="utf-8"), TABLE.name)[0].value["good"]
SENTENCE = re.compile(r"document: .*: found .+; allowed: .+\. To fix it: .+[.?]", re.DOTALL)

scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(max_size=8) | st.sampled_from(["auto", "1K", "10m", "8Gi", "llama", "s3://b", "a" * 2000]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | st.just("name"), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The path of everything inside a value."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in items for place in [(*path, key), *places(item, (*path, key))]]


@st.composite
def manifests(draw: st.DrawFn) -> dict[str, Any]:
    """A good manifest with something else in one or two places."""
    row = copy.deepcopy(draw(st.sampled_from(GOOD)))
    metadata = {"name": "x"}
    manifest = {"apiVersion": "kindling.dev/v1alpha1", "kind": row["kind"], "metadata": metadata, "spec": row["spec"]}
    for _ in range(draw(st.integers(1, 2))):
        *outside, last = draw(st.sampled_from(places(manifest)))
        inside: Any = manifest
        for part in outside:
            inside = inside[part]
        inside[last] = draw(values)
    return manifest


@settings(max_examples=120)
@given(manifests())
@example({"apiVersion": "kindling.dev/v1alpha1", "kind": "DatasetBuild", "metadata": None, "spec": None})
@example({"apiVersion": "kindling.dev/v1alpha1", "kind": ["DatasetBuild"], "metadata": {}, "spec": {}})
@example({"apiVersion": [], "kind": []})
def test_a_changed_manifest_is_accepted_or_refused_in_sentences(manifest: dict[str, Any]) -> None:
    try:
        document = parse(manifest, source="document")
    except SpecError as refusal:
        lines = re.split(r"\n(?=document: )", str(refusal))
        assert all(SENTENCE.fullmatch(line) for line in lines), lines
    else:
        assert parse(document.document()) == document


@settings(max_examples=50)
@given(manifest=manifests())
def test_a_file_says_what_the_same_data_says(manifest: dict[str, Any], tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "f.json"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    assert _verdict(lambda: load([path])) == _verdict(lambda: parse(manifest))


def _verdict(read: Any) -> bool:
    try:
        read()
    except SpecError:
        return False
    return True
