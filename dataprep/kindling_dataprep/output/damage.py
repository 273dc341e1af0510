"""What of the inputs could not be read, added up: for the check against the spec, the manifest, and people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kindling_api.v1alpha1.status import MOST_REMARKS, InputDamage
from kindling_dataprep.output.facts import CleanFacts, DamageFacts
from kindling_dataprep.output.work import Part
from kindling_dataprep.records import Remark, Removal
from kindling_dataprep.steps.faults import EXPLAINED_BY_EXCERPT, FAULTS

PLACES_SHOWN = 20
"""In the report."""
_PATH_CHARACTERS = 60
_WHY_CHARACTERS = 140


def damage_facts(places: Iterable[Removal], remarks: Iterable[Remark]) -> DamageFacts:
    """What a part says of its bad `places`, each of which has bytes, and of what was passed over."""
    costs = [(removal.unread or 0, _place(removal)) for removal in places]
    ignored = [_sentence(each.path, each.what, each.offset, each.size) for each in remarks]
    return DamageFacts(
        unread=sum(unread for unread, _ in costs),
        places=len(costs),
        largest=_largest(costs),
        ignored=ignored[:MOST_REMARKS],
    )


def damage_of(parts: Sequence[Part[CleanFacts]], input_bytes: int) -> InputDamage | None:
    """The sum of what the parts say; None where everything was read."""
    facts = [part.facts.damage for part in parts]
    remarks = [remark for _, remark in largest_places(parts)] + [each for fact in facts for each in fact.ignored]
    if not remarks:
        return None
    return InputDamage(
        bytes=input_bytes,
        unread=sum(each.unread for each in facts),
        places=sum(each.places for each in facts),
        remarks=remarks[:MOST_REMARKS],
    )


def largest_places(parts: Sequence[Part[CleanFacts]]) -> list[tuple[int, str]]:
    """The bytes of the places that cost most, and a sentence of each."""
    return _largest((unread, remark) for part in parts for unread, remark in part.facts.damage.largest)


def _largest(places: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    return sorted(places, key=lambda place: -place[0])[:PLACES_SHOWN]


def summary(damage: InputDamage) -> str:
    """One clause for people; empty where nothing was lost."""
    if not damage.places:
        return ""
    more = f", and {damage.places - 1:,} more places" if damage.places > 1 else ""
    return f"{damage.unread:,} of {damage.bytes:,} bytes could not be read ({damage.remarks[0]}{more})"


def _place(removal: Removal) -> str:
    path = removal.id.rpartition("#")[0].partition("/")[2]
    if removal.measure in EXPLAINED_BY_EXCERPT:
        return f"{_short(path)}: {removal.excerpt[:_WHY_CHARACTERS]}"
    return _sentence(path, FAULTS[removal.measure], removal.offset or 0, removal.unread or 0)


def _sentence(path: str, what: str, offset: int, size: int) -> str:
    return f"{_short(path)}: {what} ({size:,} bytes from byte {offset:,} on)"


def _short(path: str) -> str:
    return path if len(path) <= _PATH_CHARACTERS else f"…{path[-_PATH_CHARACTERS + 1 :]}"
