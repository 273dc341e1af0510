"""What a build would read, looked at in a moment: the files that are there, and whether their first records hold text.

What stops a build with a message stops here with the same one, before anything is started. Torch-free, Ray-free.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from kindling_api.errors import DataError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec, Source
from kindling_api.v1alpha1.products import INPUTS, DatasetManifest, dataset_folder
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_dataprep.records import BAD_RECORD, Document, InputFile, Removal, Span
from kindling_dataprep.steps.faults import FAULTS
from kindling_dataprep.steps.read import find_inputs, list_inputs, read
from kindling_dataprep.supported import check_not_empty, check_supported
from kindling_storage import ObjectStore
from kindling_storage.commit import read_whole
from kindling_storage.globs import OpenStore

SAMPLE_RECORDS = 300
"""Of each source."""
SAMPLE_FILES = 3
"""Of each source, from its beginning, middle and end."""
_SAMPLED = ("jsonl", "csv", "parquet")
"""Formats whose records have fields, and so can lack the one that is asked for."""


@dataclass(frozen=True)
class FirstLook:
    """What is there to be read."""

    files: list[InputFile]
    """Without digests."""
    remarks: list[str]
    """What is left out, and what of the sample cannot be read."""

    @property
    def size(self) -> int:
        """Bytes as stored."""
        return sum(file.size for file in self.files)

    def formats(self) -> dict[str, int]:
        """Files of each format, the most frequent first."""
        return dict(Counter(file.format for file in self.files).most_common())


def first_look(spec: DatasetBuildSpec, open_store: OpenStore) -> FirstLook:
    """Looks at the sources of a build.

    Raises:
        SpecError, DataError: as the build would, for what can be seen without reading all.
        StorageError: a store cannot be reached, or refuses.
    """
    check_supported(spec)
    found = find_inputs(spec.sources, open_store=open_store)
    files = [file for each in found for file in each.named]
    check_not_empty(files)
    remarks = []
    for number, (source, each) in enumerate(zip(spec.sources, found, strict=True)):
        if each.left_out:
            remarks.append(_left_out(number, each.left_out))
        remarks += _sample(source, each.named, spec.bad_records.max_fraction, open_store)
    return FirstLook(files, remarks)


def finished_build(
    run: DatasetBuildFile, published: ObjectStore, look: FirstLook, open_store: OpenStore
) -> DatasetManifest | None:
    """The dataset that a build would find finished; None where there is something to do.

    The digests of all inputs are computed only where names and sizes are those of the dataset that is there.

    Args:
        published: the folder of the newest dataset of that name.
    """
    held = [json.loads(line) for line in published.get(INPUTS).splitlines()] if published.exists(INPUTS) else []
    if [(each["source"], each["path"], each["size"]) for each in held] != [
        (file.source, file.name, file.size) for file in look.files
    ]:
        return None
    from kindling_dataprep.extras import fetch_extras  # not above: they load what cleans, and a look cleans nothing
    from kindling_dataprep.output.manifest import full_key, inputs_listing

    spans = list_inputs(run.spec.sources, open_store=open_store)
    listing = inputs_listing(list(dict.fromkeys(span.file for span in spans)))
    key = full_key(run, listing, fetch_extras(run.spec, open_store).digests())
    store = open_store(run.output.uri).child(dataset_folder(key))
    return read_whole(store, DatasetManifest)


def _sample(source: Source, files: Sequence[InputFile], allowed: float, open_store: OpenStore) -> list[str]:
    """What is to be said of a source's first records.

    Raises:
        DataError: none of them has the field that holds the text.
    """
    chosen = [file for file in files if file.size and file.format in _SAMPLED]
    chosen = chosen[:: max(1, -(-len(chosen) // SAMPLE_FILES))]
    records = [
        record
        for file in chosen
        for record in islice(_records(file, source, open_store), SAMPLE_RECORDS // len(chosen))
    ]
    bad = [each for each in records if isinstance(each, Removal) and each.rule == BAD_RECORD]
    if not bad or len(bad) <= allowed * len(records):
        return []
    examples = ", ".join(f"{each.id} ({each.note or FAULTS.get(each.measure, each.measure)})" for each in bad[:3])
    if len(bad) == len(records) and all(each.measure == "textField" for each in bad):
        found = f"none of the first {len(bad):,} records with a text: {examples}"
        raise DataError(
            explain(
                f"spec.sources[{bad[0].id.partition('/')[0]}].textField",
                found=found,
                allowed="a field of strings",
                remedy="name the field that holds the text",
            )
        )
    return [f"{len(bad):,} of the first {len(records):,} records of {source.uri} cannot be read: {examples}"]


def _records(file: InputFile, source: Source, open_store: OpenStore) -> Iterator[Document | Removal]:
    for record in read(Span.whole(file), source, open_store=open_store):
        if isinstance(record, Document | Removal):
            yield record


def _left_out(number: int, paths: Sequence[str]) -> str:
    return (
        f"spec.sources[{number}]: {len(paths):,} file{'s' if len(paths) > 1 else ''} of the folder left out for"
        f" the suffix, as {paths[0]}"
    )
