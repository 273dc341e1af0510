"""A build from its run file to a committed dataset: the stages in their order, each doing only what is not yet done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from kindling_api.base import Digest
from kindling_api.resolve import content_of, without_folders
from kindling_api.v1alpha1.products import INPUTS, DatasetManifest, Shard, dataset_folder
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.status import DatasetResult
from kindling_api.versions import step_versions
from kindling_dataprep import executors, ledger, tasks, work
from kindling_dataprep.checks import check_bad_records, check_not_empty, check_shared, check_some_left
from kindling_dataprep.executors import Executor
from kindling_dataprep.extras import Extras, fetch_extras
from kindling_dataprep.manifest import (
    document_counts,
    full_key,
    inputs_listing,
    is_whole,
    product_files,
    result_of,
    tokenizer_entry,
)
from kindling_dataprep.records import InputFile, Span
from kindling_dataprep.shards import token_type
from kindling_dataprep.stages.clean import FEWEST_HOLDERS, CleanTask, clean, count_lines, put_sites
from kindling_dataprep.stages.corpus import Corpus, Rows, corpus_of
from kindling_dataprep.stages.decontaminate import decontaminate
from kindling_dataprep.stages.deduplicate import deduplicate, removed_rows
from kindling_dataprep.stages.encode import EncodeTask, encode, make_tokenizer
from kindling_dataprep.stages.pii import look_for_pii
from kindling_dataprep.stages.repeated import merge_notes, range_count
from kindling_dataprep.stages.toxicity import judge_toxicity
from kindling_dataprep.stages.write import Split, shard_tasks, write
from kindling_dataprep.steps.boilerplate import boilerplate_of
from kindling_dataprep.steps.pii import settings_of
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
    extras = fetch_extras(run.spec, everywhere)
    key = full_key(run, inputs_listing(inputs), extras.digests())
    job = Job(run.spec, run.output, dataset_folder(key))
    store = job.store()
    manifest = _committed(store)
    if manifest is None or work.is_there(store):
        with hold(store, LOCK, run) as held:
            manifest = _committed(store)
            if manifest is None:
                manifest = _Build(job, run.name, key, inputs, spans, extras, tracker, cluster).run()
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
    extras: Extras
    tracker: Tracker
    cluster: bool

    def run(self) -> DatasetManifest:
        """All stages; what is put last, the manifest, is the caller's affair."""
        listing = put_file(self.job.store(), INPUTS, inputs_listing(self.inputs))
        groups = tasks.split(self.spans)
        input_bytes = sum(file.size for file in self.inputs)
        with self._executor(len(groups), input_bytes) as executor:
            put_sites(self.job, self.extras.blocklist)
            self._find_repeated_lines(groups, executor)
            cleaned = self._clean(groups, executor)
            corpus = corpus_of(self.job, cleaned)
            deduplicated = self._deduplicate(corpus, executor)
            judged, removed = self._judge_toxicity(corpus, removed_rows(corpus), executor)
            compared, removed = self._decontaminate(corpus, removed, executor)
            redacted, removed = self._look_for_pii(corpus, removed, executor)
            counts = document_counts([*cleaned, deduplicated, *judged, *compared, *redacted])
            check_some_left(counts, self._ledger())
            made = self._make_tokenizer(corpus, removed)
            encoded = self._encode(corpus, removed, made, executor)
            assert sum(part.facts["documents"] for part in encoded) == counts.kept, "the ledger must add up"
            written = self._write(made, encoded, executor)
        self.tracker.finish()
        parts = [*cleaned, deduplicated, *judged, *compared, *redacted, made, *encoded, *(part for _, part in written)]
        entry = tokenizer_entry(made)
        manifest = DatasetManifest(
            key=self.key,
            files=product_files([work.Part(files=[listing], facts={}), *parts]),
            spec=without_folders(content_of(self.job.spec)),
            inputs=listing.digest,
            versions=step_versions(self.job.spec),
            documents=counts,
            tokenizer=entry,
            dtype=token_type(entry.vocab_size),
            train=[Shard(**part.facts) for split, part in written if split == "train"],
            validation=[Shard(**part.facts) for split, part in written if split == "validation"],
        )
        from kindling_dataprep.report import Build, write_report  # not above: a finished build needs no matplotlib

        lines, personal = _total(cleaned, "linesRemoved"), _total(redacted, "found")
        facts = deduplicated.facts
        write_report(Build(self.job, self.name, manifest, len(groups), lines, facts, personal, self.tracker.seconds))
        return manifest

    def _executor(self, tasks: int, input_bytes: int) -> AbstractContextManager[Executor]:
        if self.cluster:
            return executors.join()
        return executors.start(self.job.spec.engine.workers, tasks, input_bytes)

    def _find_repeated_lines(self, groups: Sequence[tuple[Span, ...]], executor: Executor) -> None:
        boilerplate, duplicates = boilerplate_of(self.job.spec), self.job.spec.deduplicate.lines
        if boilerplate is None and duplicates is None:
            return
        self.tracker.stage("lines", f"Looking for lines that repeat in {len(self.inputs)} files", len(groups))
        ranges = range_count(sum(file.size for file in self.inputs))
        asked = [CleanTask(self.job, index, group, ranges) for index, group in enumerate(groups)]
        counted = {}
        for index, part in executor.each(count_lines, asked):
            counted[index] = part
            self.tracker.advance(part.facts["documents"])
        parts = [counted[index] for index in range(len(groups))]
        if boilerplate is not None:
            merge_notes(self.job, "boilerplate", parts, boilerplate.min_documents, executor)
        if duplicates is not None:
            merge_notes(self.job, "lines", parts, FEWEST_HOLDERS, executor)

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
        if self.extras.classifier is None:
            return [], removed
        stay = corpus.documents - len(removed)
        self.tracker.stage("toxicity", f"Looking for toxic texts among {stay:,} documents", 1)
        parts, removed = judge_toxicity(corpus, removed, self.extras.classifier, executor)
        self.tracker.advance(stay)
        return parts, removed

    def _decontaminate(self, corpus: Corpus, removed: Rows, executor: Executor) -> tuple[list[work.Part], Rows]:
        if not self.extras.evaluations:
            return [], removed
        stay = corpus.documents - len(removed)
        self.tracker.stage("decontaminating", f"Comparing {stay:,} documents with evaluation sets", 1)
        parts, removed = decontaminate(corpus, self.extras.evaluations, removed, executor)
        self.tracker.advance(stay)
        return parts, removed

    def _look_for_pii(self, corpus: Corpus, removed: Rows, executor: Executor) -> tuple[list[work.Part], Rows]:
        if settings_of(self.job.spec) is None:
            return [], removed
        stay = corpus.documents - len(removed)
        self.tracker.stage("pii", f"Looking for personal information in {stay:,} documents", 1)
        parts, removed = look_for_pii(corpus, removed, executor)
        self.tracker.advance(stay)
        return parts, removed

    def _make_tokenizer(self, corpus: Corpus, removed: Rows) -> work.Part:
        stay = corpus.documents - len(removed)
        kind, _ = self.job.spec.tokenizer.chosen
        self.tracker.stage("tokenizer", f"Making the tokenizer ({kind}) from {stay:,} documents", 1)
        part = make_tokenizer(self.job, corpus, removed, self.extras.tokenizer)
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


def _total(parts: Sequence[work.Part], fact: str) -> Counter[str]:
    return sum((Counter(part.facts[fact]) for part in parts), Counter[str]())
