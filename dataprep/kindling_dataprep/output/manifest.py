"""What a build promises: its key before the work, its manifest after it. No times, no host names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kindling_api.base import Digest, canonical_json, digest_of, key_of
from kindling_api.resolve import content_of, without_folders
from kindling_api.v1alpha1.products import TOKENIZER, DatasetManifest, FileEntry, TokenizerEntry
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.status import DatasetResult, DocumentCounts
from kindling_api.versions import step_versions
from kindling_dataprep.output.facts import CleanFacts, RemovalFacts, TokenizerFacts
from kindling_dataprep.output.work import WORK, Part
from kindling_dataprep.records import InputFile


def inputs_listing(inputs: Sequence[InputFile]) -> bytes:
    """inputs.jsonl: one line a file. The source's position leads to its URI in the manifest's spec."""
    lines = (
        canonical_json(
            {
                "source": file.source,
                "path": file.name,
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


def document_counts(cleaned: Sequence[Part[CleanFacts]], later: Sequence[Part[RemovalFacts]] = ()) -> DocumentCounts:
    """The sum of what the stages say: cleaning keeps documents, and the `later` ones remove some of those."""
    removed = sum((Counter(part.facts.removed) for part in cleaned), Counter[str]())
    read = sum(part.facts.kept for part in cleaned) + removed.total()
    removed += sum((Counter(part.facts.removed) for part in later), Counter[str]())
    return DocumentCounts(read=read, kept=read - removed.total(), removed=dict(sorted(removed.items())))


def result_of(manifest: DatasetManifest, uri: str) -> DatasetResult:
    """The last word's summary of a dataset at `uri`."""
    return DatasetResult(
        digest=manifest.digest,
        uri=uri,
        documents=manifest.documents,
        tokens=manifest.train_tokens + manifest.validation_tokens,
        vocab_size=manifest.tokenizer.vocab_size,
        damage=manifest.damage,
    )


def tokenizer_entry(part: Part[TokenizerFacts]) -> TokenizerEntry:
    """The tokenizer that the third stage wrote."""
    (file,) = part.files
    return TokenizerEntry(
        path=TOKENIZER,
        digest=file.digest,
        kind=part.facts.kind,
        vocab_size=part.facts.vocab_size,
        end_of_document=part.facts.end_of_document,
    )


def product_files(files: Iterable[FileEntry]) -> list[FileEntry]:
    """Those that belong to the product: all outside the work folder."""
    return sorted((file for file in files if not file.path.startswith(f"{WORK}/")), key=lambda file: file.path)
