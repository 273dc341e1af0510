from typing import Any, get_args

import pytest

from kindling_api.v1alpha1.model import PRESETS, ModelShape, ModelSpec, PresetName


def shape(**fields: Any) -> ModelShape:
    return ModelSpec.model_validate(fields).shape()


def test_every_preset_has_a_name_and_is_a_model() -> None:
    assert set(PRESETS) == set(get_args(PresetName))
    for name, expected in PRESETS.items():
        assert shape(preset=name) == expected


def test_a_field_beside_a_preset_replaces_that_size_alone() -> None:
    assert shape(preset="llama-8b", layers=2) == PRESETS["llama-8b"].model_copy(update={"layers": 2})


def test_sizes_that_follow_from_others_follow_them_beside_a_preset() -> None:
    overridden = shape(preset="gpt2-124m", heads=6, width=384)
    assert (overridden.kv_heads, overridden.ffn_width) == (6, 1536)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("gpt2", {"kv_heads": 4, "ffn_width": 512, "tied_embeddings": True}),
        ("llama", {"kv_heads": 4, "ffn_width": 352, "tied_embeddings": False}),
    ],
)
def test_sizes_that_are_not_given_follow_from_the_architecture(architecture: str, expected: dict[str, Any]) -> None:
    built = shape(architecture=architecture, layers=4, heads=4, width=128, context=64)
    assert {name: getattr(built, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("width", "heads", "remedy"), [(130, 4, "use 128"), (9, 16, "use 16"), (100, 3, "use 99")], ids=str
)
def test_a_width_that_heads_do_not_divide_is_refused_with_a_near_one(width: int, heads: int, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"spec.model.width: found {width}; .* To fix it: {remedy}"):
        shape(architecture="gpt2", layers=1, heads=heads, width=width, context=8)


def test_an_odd_head_width_is_refused_for_rotary_positions() -> None:
    with pytest.raises(ValueError, match="an even head width, since RoPE turns pairs"):
        shape(architecture="llama", layers=1, heads=4, width=12, context=8)


@pytest.mark.parametrize(("vocab", "multiple", "padded"), [(50_257, 128, 50_304), (50_304, 128, 50_304), (65, 1, 65)])
def test_a_vocabulary_is_padded_to_the_next_multiple(vocab: int, multiple: int, padded: int) -> None:
    assert PRESETS["gpt2-124m"].model_copy(update={"vocab_multiple": multiple}).padded_vocab(vocab) == padded
