"""What a build promises: its key before the work, its manifest after it. No times, no host names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from kindling_api.base import Digest, canonical_json, digest_of, key_of
from kindling_api.resolve import content_of, without_folders
from kindling_api.v1alpha1.products import TOKENIZER, DatasetManifest, FileEntry, TokenizerEntry
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.status import DatasetResult, DocumentCounts
from kindling_api.versions import step_versions
from kindling_dataprep.records import InputFile
from kindling_dataprep.work import WORK, Part
from kindling_storage import ObjectStore


def inputs_listing(inputs: Sequence[InputFile]) -> bytes:
    """inputs.jsonl: one line a file. The source's position leads to its URI in the manifest's spec."""
    lines = (
        canonical_json(
            {
                "source": file.source,
                "path": file.path,
                "size": file.size,
                "digest": file.digest,
                "format": file.format,
            }
        )
        for file in inputs
    )
    return b"".join(line + b"\n" for line in lines)


def full_key(run: DatasetBuildFile, listing: bytes, extras: Mapping[str, Any]) -> Digest:
    """The identity of the work: the spec without folders, what lies there, and the versions of the steps.

    Args:
        run: Its spec.
        listing: Content of inputs.jsonl.
        extras: Digests of what else the spec names (see `Extras`).
    """
    content = without_folders(content_of(run.spec))
    document = {"spec": content, "inputs": digest_of(listing), "versions": step_versions(run.spec)}
    return key_of(document | dict(extras))


def is_whole(store: ObjectStore, manifest: DatasetManifest) -> bool:
    """Whether the files of a committed dataset are all there, each with its size; content is left to `verify`."""
    sizes = {info.path: info.size for info in store.list()}
    return all(sizes.get(file.path) == file.size for file in manifest.files)


def document_counts(parts: Sequence[Part]) -> DocumentCounts:
    """The sum of what the stages say: the first one keeps documents, and the others remove some of those."""
    removed: Counter[str] = Counter()
    kept = 0
    for part in parts:
        removed.update(part.facts["removed"])
        kept += part.facts["kept"]
    return DocumentCounts(read=kept + removed.total(), kept=kept, removed=dict(sorted(removed.items())))


def result_of(manifest: DatasetManifest, uri: str) -> DatasetResult:
    """The last word's summary of a dataset at `uri`."""
    return DatasetResult(
        digest=manifest.digest,
        uri=uri,
        documents=manifest.documents,
        tokens=manifest.train_tokens + manifest.validation_tokens,
        vocab_size=manifest.tokenizer.vocab_size,
    )


def tokenizer_entry(part: Part) -> TokenizerEntry:
    """The tokenizer that the third stage wrote."""
    (file,) = part.files
    return TokenizerEntry(
        path=TOKENIZER,
        digest=file.digest,
        kind=part.facts["kind"],
        vocab_size=part.facts["vocabSize"],
        end_of_document=part.facts["endOfDocument"],
    )


def product_files(parts: Sequence[Part]) -> list[FileEntry]:
    """The files that belong to the product: all that the parts hold, outside the work folder."""
    files = [file for part in parts for file in part.files if not file.path.startswith(f"{WORK}/")]
    return sorted(files, key=lambda file: file.path)
