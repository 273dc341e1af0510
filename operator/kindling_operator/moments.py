"""Moments as a status holds them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """`2026-05-01T12:00:00Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: object) -> datetime | None:
    """The moment that a status or the API server wrote; None for anything that is none."""
    try:
        parsed = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def seconds_since(text: object, now: datetime) -> float:
    """Seconds from then to now; 0 where there is no such moment, or where it lies ahead."""
    then = moment(text)
    return max(0.0, (now - then).total_seconds()) if then else 0.0
