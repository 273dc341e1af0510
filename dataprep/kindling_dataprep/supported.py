"""What stops a build with a message: what this version cannot do, nothing to read, too much unreadable, nothing left.

The spec is complete from the start so that documents need not change; a rule that is silently not applied would be
worse than a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence

from kindling_api.errors import DataError, SpecError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.status import DocumentCounts, InputDamage
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_dataprep.output.damage import summary
from kindling_dataprep.records import BAD_RECORD, NO_PAGE, InputFile
from kindling_dataprep.steps.language import languages


def check_supported(spec: DatasetBuildSpec) -> None:
    """Refuse a spec that asks for more than this version does.

    Raises:
        SpecError: naming the first such field.
    """
    for number, each in enumerate(spec.filters):
        if each.language is not None:
            _check_languages(f"spec.filters[{number}].language.keep", each.language.keep)


def check_shared(output: StorageSpec) -> None:
    """Raises SpecError where the store is a folder, which the pods of a cluster do not share."""
    if output.uri.startswith("file:"):
        remedy = "give an s3:// store, or spec.engine.workers 0"
        raise SpecError(
            explain("spec.storage.uri", found=output.uri, allowed="a store that all workers reach", remedy=remedy)
        )


def check_not_empty(inputs: Sequence[InputFile]) -> None:
    """Raises DataError where all files are empty."""
    if not any(file.size for file in inputs):
        found = f"{inputs[0].name}{f' and {len(inputs) - 1} more' if len(inputs) > 1 else ''}, with 0 bytes"
        remedy = "give sources that hold text"
        raise DataError(explain("spec.sources", found=found, allowed="at least one file with text", remedy=remedy))


def check_bad_records(
    counts: DocumentCounts, damage: InputDamage | None, spec: DatasetBuildSpec, examples: Sequence[str], where: str
) -> None:
    """Raises DataError where more records, or more of the inputs' bytes, are unreadable than the spec allows; records
    that are no pages do not count."""
    bad, allowed = counts.removed.get(BAD_RECORD, 0), spec.bad_records.max_fraction
    records = counts.read - counts.removed.get(NO_PAGE, 0)
    found = []
    if bad > allowed * records:
        found.append(f"{bad:,} unreadable records out of {records:,} ({', '.join(sorted(examples)[:3])})")
    if damage is not None and damage.places and (found or damage.unread > allowed * damage.bytes):
        found.append(summary(damage))
    if found:
        named = "name the right field in textField, " if any("its fields: " in each for each in examples) else ""
        remedy = f"{named}repair the inputs (the ledger in {where} has each of them), or raise the fraction"
        raise DataError(
            explain(
                "spec.badRecords.maxFraction",
                found=", and ".join(found),
                allowed=f"{allowed:g} of them",
                remedy=remedy,
            )
        )


def check_some_left(counts: DocumentCounts, where: str) -> None:
    """Raises DataError where no document stays."""
    if counts.read == 0:
        found, remedy = "no record in any file", "give sources that hold text"
        raise DataError(explain("spec.sources", found=found, allowed="at least one record", remedy=remedy))
    if counts.kept == 0:
        funnel = ", ".join(f"{number:,} by {rule}" for rule, number in counts.removed.items())
        found = f"none left of {counts.read:,} records (removed: {funnel})"
        remedy = f"see the ledger in {where} for values and thresholds, and relax the rules or give other sources"
        raise DataError(explain("spec.filters", found=found, allowed="at least one document", remedy=remedy))


def _check_languages(field: str, codes: Sequence[str]) -> None:
    known = languages()
    unknown = [code for code in codes if code not in known]
    if unknown:
        allowed = f"languages that are told apart: {', '.join(known)}"
        raise SpecError(explain(field, found=", ".join(unknown), allowed=allowed, remedy="use their codes"))
