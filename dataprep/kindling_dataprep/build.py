"""A build from its run file to a committed dataset: the stages in their order, each doing only what is not yet done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from kindling_api.base import Digest
from kindling_api.errors import DataError, SpecError, explain
from kindling_api.resolve import content_of
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.products import INPUTS, DatasetManifest, Shard, dataset_folder
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.status import DatasetResult, DocumentCounts
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.versions import step_versions
from kindling_dataprep import executors, ledger, tasks, tokenizer, work
from kindling_dataprep.executors import Executor
from kindling_dataprep.manifest import (
    document_counts,
    full_key,
    inputs_listing,
    is_whole,
    product_files,
    result_of,
    tokenizer_entry,
)
from kindling_dataprep.records import BAD_RECORD, InputFile, Span
from kindling_dataprep.shards import token_type
from kindling_dataprep.stages.clean import CleanTask, clean
from kindling_dataprep.stages.corpus import Corpus, Rows, corpus_of
from kindling_dataprep.stages.deduplicate import deduplicate, removed_rows
from kindling_dataprep.stages.encode import EncodeTask, encode, make_tokenizer
from kindling_dataprep.stages.toxicity import judge_toxicity
from kindling_dataprep.stages.write import Split, shard_tasks, write
from kindling_dataprep.steps import toxicity
from kindling_dataprep.steps.read import list_inputs
from kindling_dataprep.supported import check_supported
from kindling_dataprep.tasks import Job
from kindling_dataprep.tracker import Tracker
from kindling_storage import ObjectStore
from kindling_storage.commit import commit, put_file, read_manifest
from kindling_storage.hold import LOCK, confirm, hold
from kindling_storage.names import Published, publish


def build(run: DatasetBuildFile, tracker: Tracker, *, cluster: bool = False) -> DatasetResult:
    """Builds the dataset that `run` asks for, or finds it finished; goes on where an earlier build was stopped.

    Args:
        cluster: Whether the tasks go to the Ray cluster that this process is a job of.

    Raises:
        SpecError: the spec asks for what this version cannot do, or a source or tokenizer that is none.
        DataError: nothing to read, too many bad records, or nothing left.
        StorageError: a store cannot be reached, or refuses.
        ConflictError: another process builds the same dataset now.
    """
    check_supported(run.spec)
    if cluster:
        check_shared(run.output)
    everywhere = Job(run.spec, run.output, "").open_input
    spans = list_inputs(run.spec.sources, open_store=everywhere)
    inputs = list(dict.fromkeys(span.file for span in spans))
    check_not_empty(inputs)
    chosen = run.spec.tokenizer.from_
    existing = tokenizer.fetch(chosen.uri, everywhere) if chosen is not None else None
    classifier = toxicity.fetch(run.spec.toxicity.model, everywhere) if run.spec.toxicity is not None else None
    key = full_key(run, inputs_listing(inputs), existing, classifier)
    job = Job(run.spec, run.output, dataset_folder(key))
    store = job.store()
    manifest = _committed(store)
    if manifest is None or work.is_there(store):
        with hold(store, LOCK, run) as held:
            manifest = _committed(store)
            if manifest is None:
                manifest = _Build(job, run.name, key, inputs, spans, existing, classifier, tracker, cluster).run()
                confirm(store, LOCK, held.token)
                commit(store, manifest)
            work.clear(store)
    product = Published(uri=store.uri, digest=manifest.digest, key=key)
    publish(everywhere(run.output.uri), "DatasetBuild", run.namespace, run.name, product)
    return result_of(manifest, store.uri)


def _committed(store: ObjectStore) -> DatasetManifest | None:
    """The manifest of the finished dataset, if it is finished and all its files are there."""
    manifest = read_manifest(store, DatasetManifest)
    return manifest if manifest is not None and is_whole(store, manifest) else None


@dataclass(frozen=True)
class _Build:
    """One build, up to its manifest."""

    job: Job
    name: str
    key: Digest
    inputs: list[InputFile]
    spans: list[Span]
    tokenizer: bytes | None
    classifier: bytes | None
    tracker: Tracker
    cluster: bool

    def run(self) -> DatasetManifest:
        """All stages; what is put last, the manifest, is the caller's affair."""
        listing = put_file(self.job.store(), INPUTS, inputs_listing(self.inputs))
        groups = tasks.split(self.spans)
        input_bytes = sum(file.size for file in self.inputs)
        with self._executor(len(groups), input_bytes) as executor:
            cleaned = self._clean(groups, executor)
            corpus = corpus_of(self.job, cleaned)
            deduplicated = self._deduplicate(corpus, executor)
            judged, removed = self._judge_toxicity(corpus, removed_rows(corpus), executor)
            counts = document_counts([*cleaned, deduplicated, *judged])
            check_some_left(counts, self._ledger())
            made = self._make_tokenizer(corpus, removed)
            encoded = self._encode(corpus, removed, made, executor)
            assert sum(part.facts["documents"] for part in encoded) == counts.kept, "the ledger must add up"
            written = self._write(made, encoded, executor)
        self.tracker.finish()
        parts = [*cleaned, deduplicated, *judged, made, *encoded, *(part for _, part in written)]
        entry = tokenizer_entry(made)
        manifest = DatasetManifest(
            key=self.key,
            files=product_files([work.Part(files=[listing], facts={}), *parts]),
            spec=content_of(self.job.spec),
            inputs=listing.digest,
            versions=step_versions(self.job.spec),
            documents=counts,
            tokenizer=entry,
            dtype=token_type(entry.vocab_size),
            train=[Shard(**part.facts) for split, part in written if split == "train"],
            validation=[Shard(**part.facts) for split, part in written if split == "validation"],
        )
        from kindling_dataprep.report import Build, write_report  # not above: a finished build needs no matplotlib

        lines = sum((Counter(part.facts.get("linesRemoved", {})) for part in cleaned), Counter[str]())
        facts = deduplicated.facts
        write_report(Build(self.job, self.name, manifest, len(groups), lines, facts, self.tracker.seconds))
        return manifest

    def _executor(self, tasks: int, input_bytes: int) -> AbstractContextManager[Executor]:
        if self.cluster:
            return executors.join()
        return executors.start(self.job.spec.engine.workers, tasks, input_bytes)

    def _clean(self, groups: Sequence[tuple[Span, ...]], executor: Executor) -> list[work.Part]:
        self.tracker.stage("reading", f"Reading and filtering {len(self.inputs)} files", len(groups))
        asked = [CleanTask(self.job, index, group) for index, group in enumerate(groups)]
        done = {}
        for index, part in executor.each(clean, asked):
            done[index] = part
            self.tracker.advance(part.facts["kept"] + sum(part.facts["removed"].values()))
        parts = [done[index] for index in range(len(groups))]
        counts = document_counts(parts)
        where = self._ledger()
        bad = [record for part in parts for record in part.facts["badRecords"]]
        check_bad_records(counts, self.job.spec, bad, where)
        check_some_left(counts, where)
        return parts

    def _ledger(self) -> str:
        """Where a person finds the ledger of the removed."""
        store = self.job.store()
        return str(store.local_path(ledger.REMOVED) or f"{store.uri}/{ledger.REMOVED}")

    def _deduplicate(self, corpus: Corpus, executor: Executor) -> work.Part:
        self.tracker.stage("deduplicating", f"Looking for duplicates among {corpus.documents:,} documents", 1)
        part = deduplicate(corpus, executor)
        self.tracker.advance(corpus.documents)
        return part

    def _judge_toxicity(self, corpus: Corpus, removed: Rows, executor: Executor) -> tuple[list[work.Part], Rows]:
        if self.classifier is None:
            return [], removed
        stay = corpus.documents - len(removed)
        self.tracker.stage("toxicity", f"Looking for toxic texts among {stay:,} documents", 1)
        parts, removed = judge_toxicity(self.job, corpus, removed, self.classifier, executor)
        self.tracker.advance(stay)
        return parts, removed

    def _make_tokenizer(self, corpus: Corpus, removed: Rows) -> work.Part:
        stay = corpus.documents - len(removed)
        kind, _ = self.job.spec.tokenizer.chosen
        self.tracker.stage("tokenizer", f"Making the tokenizer ({kind}) from {stay:,} documents", 1)
        part = make_tokenizer(self.job, corpus, removed, self.tokenizer)
        self.tracker.advance(stay)
        return part

    def _encode(self, corpus: Corpus, removed: Rows, made: work.Part, executor: Executor) -> list[work.Part]:
        parts = range(corpus.parts)
        self.tracker.stage("encoding", f"Encoding {corpus.documents - len(removed):,} documents", corpus.parts)
        asked = [EncodeTask(self.job, index, corpus.rows(removed, index), made.facts["kind"]) for index in parts]
        encoded = {}
        for index, part in executor.each(encode, asked):
            encoded[index] = part
            self.tracker.advance(part.facts["documents"])
        return [encoded[index] for index in parts]

    def _write(self, made: work.Part, encoded: list[work.Part], executor: Executor) -> list[tuple[Split, work.Part]]:
        kept = ledger.read_kept(self.job.store(), ["id", "source", "digest", "tokens"])
        counts = np.array([part.facts["documents"] for part in encoded])
        asked = shard_tasks(self.job, kept, counts, token_type(made.facts["vocabSize"]))
        tokens = sum(int(task.length.sum()) for task in asked)
        self.tracker.stage("writing", f"Writing {len(asked)} shards, {tokens:,} tokens", len(asked))
        written = {}
        for split, index, part in executor.each(write, asked):
            written[split, index] = part
            self.tracker.advance(part.facts["documents"])
        return [(split, part) for (split, _), part in sorted(written.items())]


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
    """Raises DataError where more records are unreadable than the spec allows."""
    bad, allowed = counts.removed.get(BAD_RECORD, 0), spec.bad_records.max_fraction
    if bad > allowed * counts.read:
        found = f"{bad:,} unreadable records out of {counts.read:,} ({', '.join(sorted(examples)[:3])})"
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
