"""Numbers as people read them."""

from __future__ import annotations

import pytest

from kindling_cli.figures import byte_size, duration, flops, short_count, short_digest


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (short_count(812), "812"),
        (short_count(9_999), "9,999"),
        (short_count(38_400), "38.4 K"),
        (short_count(999_700), "1.00 M"),
        (short_count(4_102_331), "4.10 M"),
        (short_count(2.5e9), "2.50 B"),
        (short_count(7e15), "7000 T"),
        (byte_size(0), "0 B"),
        (byte_size(1023), "1023 B"),
        (byte_size(12_897_484), "12.3 MiB"),
        (byte_size(2**40), "1.0 TiB"),
        (duration(0.4), "0:00"),
        (duration(72), "1:12"),
        (duration(4_000), "1:06:40"),
        (duration(200_000), "2 d 7 h"),
        (flops(3.2e13), "3.20e13"),
        (short_digest("sha256:0123456789abcdef"), "sha256:0123456789ab"),
    ],
    ids=str,
)
def test_a_figure_is_short(said: str, meant: str) -> None:
    assert said == meant
