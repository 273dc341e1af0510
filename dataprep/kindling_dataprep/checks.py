"""What stops a build with a message: nothing to read, too much of it unreadable, or nothing left."""

from __future__ import annotations

from collections.abc import Sequence

from kindling_api.errors import DataError, SpecError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.status import DocumentCounts
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_dataprep.records import BAD_RECORD, NO_PAGE, InputFile


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
        found = f"{inputs[0].path}{f' and {len(inputs) - 1} more' if len(inputs) > 1 else ''}, with 0 bytes"
        remedy = "give sources that hold text"
        raise DataError(explain("spec.sources", found=found, allowed="at least one file with text", remedy=remedy))


def check_bad_records(counts: DocumentCounts, spec: DatasetBuildSpec, examples: Sequence[str], where: str) -> None:
    """Raises DataError where more records are unreadable than the spec allows; those that are no pages do not count."""
    bad, allowed = counts.removed.get(BAD_RECORD, 0), spec.bad_records.max_fraction
    records = counts.read - counts.removed.get(NO_PAGE, 0)
    if bad > allowed * records:
        found = f"{bad:,} unreadable records out of {records:,} ({', '.join(sorted(examples)[:3])})"
        remedy = f"repair the inputs (the ledger in {where} has each of them), or raise the fraction"
        raise DataError(
            explain("spec.badRecords.maxFraction", found=found, allowed=f"{allowed:g} of them", remedy=remedy)
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
