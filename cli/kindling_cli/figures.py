"""Numbers as people read them: `4.1 M`, `1:12`, `12.3 MiB`. One place, so that every screen spells them alike."""

from __future__ import annotations

_DECIMAL = ("", " K", " M", " B", " T")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


def short_count(number: float) -> str:
    """`4_102_331` → `4.10 M`; numbers below ten thousand are written out.

    >>> short_count(812), short_count(9_999), short_count(38_400), short_count(2_500_000_000)
    ('812', '9,999', '38.4 K', '2.50 B')
    """
    if abs(number) < 10_000:
        return f"{number:,.0f}"
    return _scaled(number, 1000, _DECIMAL)


def flops(number: float) -> str:
    """A number of floating-point operations in powers of ten, as papers write it: `3.20e13`."""
    return f"{number:.2e}".replace("e+", "e")


def byte_size(number: float) -> str:
    """`12_897_484` → `12.3 MiB`."""
    if number < 1024:
        return f"{number:.0f} B"
    value, power = float(number), 0
    while value >= 1023.95 and power < len(_BINARY) - 1:
        value, power = value / 1024, power + 1
    return f"{value:.1f} {_BINARY[power]}"


def duration(seconds: float) -> str:
    """`72` → `1:12`, `4000` → `1:06:40`, `200_000` → `2 d 7 h`."""
    whole = round(seconds)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def counted(number: int, noun: str) -> str:
    """`1 document`, `2,000 documents`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def age(seconds: float) -> str:
    """`5_400` → `1 h`: the largest unit alone, for how long something has been there."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:,.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def short_digest(digest: str) -> str:
    """`sha256:` and the first 12 digits: enough to tell two products apart on a screen."""
    return digest[: len("sha256:") + 12]


def _scaled(number: float, base: int, units: tuple[str, ...]) -> str:
    value, power = float(number), 0
    while abs(value) >= base * 0.9995 and power < len(units) - 1:
        value, power = value / base, power + 1
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}{units[power]}"
