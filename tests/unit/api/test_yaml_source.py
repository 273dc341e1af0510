from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindling_api.errors import SpecError
from kindling_api.yaml_source import FieldPath, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6e-4", 6e-4),
        ("1e3", 1000),
        ("1.0", 1),
        ("-1.5e-3", -0.0015),
        (".5", 0.5),
        ("1.", 1),
        ("+5", 5),
        ("010", 8),
        ("08", 8),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0x1F", -31),
        ("0b101", 5),
        ("1_000", 1000),
        ("1e21", 1e21),
        ("1e400", "1e400"),
        ("yes", True),
        ("off", False),
        ("y", True),
        ("tRue", "tRue"),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("100M", "100M"),
        ("12e", "12e"),
        ("'1'", "1"),
        ('"yes"', "yes"),
        ("!!str 12", "12"),
    ],
)
def test_a_scalar_is_what_kubectl_takes_it_for(text: str, value: object) -> None:
    """The right-hand side was taken from `kubectl create --dry-run=client -o json` (1.32)."""
    found = read_yaml(f"a: {text}", "f")[0].value["a"]
    assert (found, type(found)) == (value, type(value))


def test_every_field_has_the_line_of_its_key() -> None:
    document = read_yaml("a:\n  b: 1\n  c:\n  - x\n  - y: 2\n", "f")[0]
    lines: dict[FieldPath, int] = {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1, "y"): 5,
    }
    assert {path: document.line_of(path) for path in lines} == lines


def test_a_field_that_is_not_there_has_the_line_of_what_surrounds_it() -> None:
    document = read_yaml("a:\n  b: 1\n", "f")[0]
    assert document.line_of(("a", "z", 3)) == 1


def test_empty_documents_are_left_out_and_lines_count_on() -> None:
    documents = read_yaml("---\n# nothing\n---\na: 1\n---\n---\nb: 2\n", "f")
    assert [(document.value, document.lines[()]) for document in documents] == [({"a": 1}, 4), ({"b": 2}, 7)]


def test_merge_keys_and_aliases_work_and_own_fields_win() -> None:
    value: Any = read_yaml("base: &base {p: 1, q: 2}\nmore: &more {q: 3, r: 4}\nx: {q: 5, <<: [*base, *more]}\n", "f")[
        0
    ].value
    assert value["x"] == {"q": 5, "p": 1, "r": 4}


def test_keys_are_text_as_in_json() -> None:
    assert read_yaml("{1: a, true: b, no: c}", "f")[0].value == {"1": "a", "true": "b", "false": "c"}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            "a: 1\nb: 2\na: 3",
            "f:3: found 'a' a second time (first on line 1); allowed: each key once. To fix it: remove one of the two.",
            id="duplicate key",
        ),
        pytest.param(
            "a: [1",
            "f:1: found expected ',' or ']', but got '<stream end>'; allowed: YAML. To fix it: correct this line"
            " or the one above: look for a missing colon, space, quote, bracket or indentation.",
            id="open bracket",
        ),
        pytest.param(
            "a:\n\tb: 1",
            "f:2: found character '\\t' that cannot start any token; allowed: YAML. To fix it: indent with spaces: YAML"
            " does not allow tabs.",
            id="tab",
        ),
        pytest.param(
            "a: 1\nb: \x00",
            "f:2: found the control character 0; allowed: YAML, which is text. To fix it: remove it, or give the right"
            " file.",
            id="control character",
        ),
        pytest.param(
            "a: .inf",
            "f:1: found .inf; allowed: a finite number. To fix it: write a finite number, or quote the text.",
            id="infinity",
        ),
        pytest.param(
            "a: !secret x",
            "f:1: found the tag !secret; allowed: plain YAML values. To fix it: remove the tag, or quote the text.",
            id="tag",
        ),
        pytest.param(
            "a: &a [*a]",
            "f:1: found an alias inside the value that it names; allowed: values that end. To fix it: remove the"
            " alias.",
            id="endless alias",
        ),
        pytest.param(
            "? [1]\n: 2",
            "f:1: found a key that is no text; allowed: text. To fix it: write the key as plain text.",
            id="list as a key",
        ),
        pytest.param(
            "[" * 600,
            "f:1: found values nested too deeply; allowed: a hundred levels or so. To fix it: flatten the document.",
            id="deep",
        ),
    ],
)
def test_what_is_no_yaml_is_refused_with_its_line(text: str, sentence: str) -> None:
    with pytest.raises(SpecError) as refusal:
        read_yaml(text, "f")
    assert str(refusal.value) == sentence


def test_aliases_that_would_grow_without_bound_are_refused() -> None:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(SpecError, match="found more than 100000 values"):
        read_yaml("\n".join(lines), "f")


@given(st.text(max_size=60) | st.text(alphabet="-+._eExXoObB0123456789~!&*<>[]{}:,# \n\t'\"ynint", max_size=30))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        documents = read_yaml(text, "f")
    except SpecError:
        return
    assert all(document.lines[()] >= 1 for document in documents)
