import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kindling_api.quantities import ByteSize, Count, CpuQuantity, Duration, parse_count, seconds


@pytest.mark.parametrize(
    ("text", "count"),
    [("1000", 1000), ("1K", 1000), ("2.5B", 2_500_000_000), ("512Ki", 524_288), ("1.5M", 1_500_000), ("1T", 10**12)],
)
def test_a_count_is_the_integer_it_means(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "'many' is not a count: write an integer, or a number with K, M, B, T, Ki, Mi or Gi"),
        ("1k", "'1k' is not a count: write an integer, or a number with K, M, B, T, Ki, Mi or Gi"),
        ("1.5", "'1.5' is not a whole number"),
        ("0.0005K", "'0.0005K' is not a whole number"),
        ("1\n", "'1\\n' is not a count: write an integer, or a number with K, M, B, T, Ki, Mi or Gi"),
    ],
)
def test_what_is_no_count_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_count(text)
    assert str(refusal.value) == message


@given(st.integers(1, 10**15))
def test_a_count_in_digits_is_itself(count: int) -> None:
    assert parse_count(str(count)) == count


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)])
def test_a_duration_is_read_in_seconds(text: str, expected: int) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    ("type_", "written", "kept"),
    [(CpuQuantity, "4", "4"), (CpuQuantity, '"500m"', "500m"), (ByteSize, "1024", "1024"), (Count, '"1K"', 1000)],
)
def test_integers_and_strings_are_the_same_quantity(type_: object, written: str, kept: object) -> None:
    assert TypeAdapter(type_).validate_json(written, strict=True) == kept


@pytest.mark.parametrize(
    ("type_", "written"),
    [
        (CpuQuantity, "0.5"),
        (CpuQuantity, "true"),
        (ByteSize, '"8GB"'),
        (Count, "0"),
        (Count, "true"),
        (Duration, '"1w"'),
    ],
)
def test_other_values_are_no_quantities(type_: object, written: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(type_).validate_json(written, strict=True)
