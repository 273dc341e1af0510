"""A build from its run file to a committed dataset: the stages in their order, each doing only what is not yet done."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from kindling_api.base import Digest, Status
from kindling_api.resolve import content_of, without_folders
from kindling_api.v1alpha1.products import INPUTS, DatasetManifest, Shard, dataset_folder
from kindling_api.v1alpha1.runfile import DatasetBuildFile
from kindling_api.v1alpha1.status import DatasetResult, InputDamage
from kindling_api.versions import step_versions
from kindling_dataprep import executors
from kindling_dataprep.executors import Executor, Task, collect, tasks
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.extras import Extras, fetch_extras
from kindling_dataprep.output import ledger, work
from kindling_dataprep.output.damage import damage_of, largest_places
from kindling_dataprep.output.facts import (
    CleanFacts,
    DuplicateFacts,
    EncodingFacts,
    LineFacts,
    PersonalFacts,
    RemovalFacts,
    TokenizerFacts,
)
from kindling_dataprep.output.manifest import (
    document_counts,
    full_key,
    inputs_listing,
    product_files,
    result_of,
    tokenizer_entry,
)
from kindling_dataprep.output.shards import token_type
from kindling_dataprep.records import InputFile, Span
from kindling_dataprep.stages.clean import FEWEST_HOLDERS, CleanTask, clean, count_lines, put_sites
from kindling_dataprep.stages.corpus import Corpus, Rows, corpus_of
from kindling_dataprep.stages.decontaminate import decontaminate, unrecognised
from kindling_dataprep.stages.deduplicate import deduplicate, removed_rows
from kindling_dataprep.stages.encode import EncodeTask, encode, make_tokenizer
from kindling_dataprep.stages.line_counts import merge_line_holders, range_count
from kindling_dataprep.stages.pii import look_for_pii
from kindling_dataprep.stages.toxicity import filter_toxicity
from kindling_dataprep.stages.write import shard_tasks, write
from kindling_dataprep.steps.boilerplate import boilerplate_of
from kindling_dataprep.steps.pii import settings_of
from kindling_dataprep.steps.read import list_inputs
from kindling_dataprep.supported import (
    check_bad_records,
    check_not_empty,
    check_shared,
    check_some_left,
    check_supported,
)
from kindling_dataprep.tracker import Tracker
from kindling_storage.commit import commit, discard_damaged, put_file, read_whole
from kindling_storage.lock import LOCK, confirm, lock
from kindling_storage.names import Published, publish
from kindling_storage.origin import record_origin

log = logging.getLogger(__name__)

Counted = TypeVar("Counted", LineFacts, EncodingFacts, Shard)
"""What parts say that count documents, for the progress."""


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
    manifest = read_whole(store, DatasetManifest)
    if manifest is None or work.is_there(store):
        with lock(store, LOCK, run) as held:
            manifest = read_whole(store, DatasetManifest)
            if manifest is None:
                discard_damaged(store, DatasetManifest)
                record_origin(store, run)
                manifest = _Build(job, run.name, key, inputs, spans, extras, tracker, cluster).run()
                confirm(store, LOCK, held.token)
                commit(store, manifest)
            work.clear(store)
    product = Published(uri=store.uri, digest=manifest.digest, key=key, uid=run.uid)
    publish(everywhere(run.output.uri), "DatasetBuild", run.namespace, run.name, product)
    return result_of(manifest, store.uri)


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
            cleaned, damage = self._clean(groups, executor)
            corpus = corpus_of(self.job, cleaned)
            deduplicated = self._deduplicate(corpus, executor)
            scored, removed = self._filter_toxicity(corpus, removed_rows(corpus), executor)
            compared, removed = self._decontaminate(corpus, removed, executor)
            redacted, removed = self._look_for_pii(corpus, removed, executor)
            removing: list[work.Part[RemovalFacts]] = [deduplicated, *scored, *compared, *redacted]
            counts = document_counts(cleaned, removing)
            check_some_left(counts, self._ledger())
            made = self._make_tokenizer(corpus, removed)
            encoded = self._encode(corpus, removed, made, executor)
            assert sum(part.facts.documents for part in encoded) == counts.kept, "the ledger must add up"
            written = self._write(made, encoded, executor)
        self.tracker.finish()
        parts: list[work.Part[Status]] = [*cleaned, *removing, made, *encoded, *(part for _, part in written)]
        entry = tokenizer_entry(made)
        manifest = DatasetManifest(
            key=self.key,
            files=product_files([listing, *(file for part in parts for file in part.files)]),
            spec=without_folders(content_of(self.job.spec)),
            inputs=listing.digest,
            versions=step_versions(self.job.spec),
            documents=counts,
            damage=damage,
            tokenizer=entry,
            dtype=token_type(entry.vocab_size),
            train=[part.facts for split, part in written if split == "train"],
            validation=[part.facts for split, part in written if split == "validation"],
        )
        from kindling_dataprep.report.report import (  # not above: a finished build needs no matplotlib
            Build,
            write_report,
        )

        lines = _total(part.facts.lines_removed for part in cleaned)
        personal = _total(part.facts.found for part in redacted)
        facts, places = deduplicated.facts, [remark for _, remark in largest_places(cleaned)]
        seconds = self.tracker.seconds
        write_report(Build(self.job, self.name, manifest, len(groups), lines, facts, personal, places, seconds))
        return manifest

    def _executor(self, count: int, input_bytes: int) -> AbstractContextManager[Executor]:
        if self.cluster:
            return executors.join()
        return executors.start(self.job.spec.engine.workers, count, input_bytes)

    def _find_repeated_lines(self, groups: Sequence[tuple[Span, ...]], executor: Executor) -> None:
        boilerplate, duplicates = boilerplate_of(self.job.spec), self.job.spec.deduplicate.lines
        if boilerplate is None and duplicates is None:
            return
        self.tracker.stage("lines", f"Looking for lines that repeat in {len(self.inputs)} files", len(groups))
        ranges = range_count(sum(file.size for file in self.inputs))
        asked = [CleanTask(self.job, index, group, ranges) for index, group in enumerate(groups)]
        parts = self._parts(executor, count_lines, asked)
        if boilerplate is not None:
            merge_line_holders(self.job, "boilerplate", parts, boilerplate.min_documents, executor)
        if duplicates is not None:
            merge_line_holders(self.job, "lines", parts, FEWEST_HOLDERS, executor)

    def _clean(
        self, groups: Sequence[tuple[Span, ...]], executor: Executor
    ) -> tuple[list[work.Part[CleanFacts]], InputDamage | None]:
        self.tracker.stage("reading", f"Reading and filtering {len(self.inputs)} files", len(groups))
        asked = [CleanTask(self.job, index, group) for index, group in enumerate(groups)]
        parts = [part for _, part in collect(executor, clean, asked, self._advance_cleaned)]
        counts = document_counts(parts)
        where = self._ledger()
        damage = damage_of(parts, sum(file.size for file in self.inputs))
        for remark in damage.remarks if damage is not None else ():
            log.warning("%s", remark)
        bad = [record for part in parts for record in part.facts.bad_records]
        check_bad_records(counts, damage, self.job.spec, bad, where)
        check_some_left(counts, where)
        return parts, damage

    def _ledger(self) -> str:
        """Where a person finds the ledger of the removed."""
        store = self.job.store()
        return str(store.local_path(ledger.REMOVED) or f"{store.uri}/{ledger.REMOVED}")

    def _deduplicate(self, corpus: Corpus, executor: Executor) -> work.Part[DuplicateFacts]:
        self.tracker.stage("deduplicating", f"Looking for duplicates among {corpus.documents:,} documents", 1)
        part = deduplicate(corpus, executor)
        self.tracker.advance(corpus.documents)
        return part

    def _filter_toxicity(
        self, corpus: Corpus, removed: Rows, executor: Executor
    ) -> tuple[list[work.Part[RemovalFacts]], Rows]:
        if self.extras.classifier is None:
            return [], removed
        stay = corpus.documents - len(removed)
        self.tracker.stage("toxicity", f"Looking for toxic texts among {stay:,} documents", 1)
        parts, removed = filter_toxicity(corpus, removed, self.extras.classifier, executor)
        self.tracker.advance(stay)
        return parts, removed

    def _decontaminate(
        self, corpus: Corpus, removed: Rows, executor: Executor
    ) -> tuple[list[work.Part[RemovalFacts]], Rows]:
        if not self.extras.evaluations:
            return [], removed
        stay = corpus.documents - len(removed)
        self.tracker.stage("decontaminating", f"Comparing {stay:,} documents with evaluation sets", 1)
        parts, removed = decontaminate(corpus, self.extras.evaluations, removed, executor)
        for sentence in unrecognised(self.job):
            log.warning("%s", sentence)
        self.tracker.advance(stay)
        return parts, removed

    def _look_for_pii(
        self, corpus: Corpus, removed: Rows, executor: Executor
    ) -> tuple[list[work.Part[PersonalFacts]], Rows]:
        if settings_of(self.job.spec) is None:
            return [], removed
        stay = corpus.documents - len(removed)
        self.tracker.stage("pii", f"Looking for personal information in {stay:,} documents", 1)
        parts, removed = look_for_pii(corpus, removed, executor)
        self.tracker.advance(stay)
        return parts, removed

    def _make_tokenizer(self, corpus: Corpus, removed: Rows) -> work.Part[TokenizerFacts]:
        stay = corpus.documents - len(removed)
        kind, _ = self.job.spec.tokenizer.chosen
        self.tracker.stage("tokenizer", f"Making the tokenizer ({kind}) from {stay:,} documents", 1)
        part = make_tokenizer(self.job, corpus, removed, self.extras.tokenizer)
        self.tracker.advance(stay)
        return part

    def _encode(
        self, corpus: Corpus, removed: Rows, made: work.Part[TokenizerFacts], executor: Executor
    ) -> list[work.Part[EncodingFacts]]:
        self.tracker.stage("encoding", f"Encoding {corpus.documents - len(removed):,} documents", corpus.parts)
        kind, end = made.facts.kind, made.facts.end_of_document
        asked = [EncodeTask(self.job, index, corpus.rows(removed, index), kind, end) for index in range(corpus.parts)]
        return self._parts(executor, encode, asked)

    def _write(
        self, made: work.Part[TokenizerFacts], encoded: list[work.Part[EncodingFacts]], executor: Executor
    ) -> list[tuple[str, work.Part[Shard]]]:
        kept = ledger.read_kept(self.job.store(), ["id", "source", "digest", "tokens"])
        counts = np.array([part.facts.documents for part in encoded])
        asked = shard_tasks(self.job, kept, counts, token_type(made.facts.vocab_size))
        tokens = sum(int(task.length.sum()) for task in asked)
        self.tracker.stage("writing", f"Writing {len(asked)} shards, {tokens:,} tokens", len(asked))
        written = collect(executor, write, asked, self._advance)
        return [(split, part) for (split, _), part in written]

    def _parts(
        self, executor: Executor, work_on: Callable[[Task], tuple[int, work.Part[Counted]]], asked: Sequence[Task]
    ) -> list[work.Part[Counted]]:
        """What the tasks made, in their order."""
        return [part for _, part in collect(executor, work_on, asked, self._advance)]

    def _advance_cleaned(self, part: work.Part[CleanFacts]) -> None:
        self.tracker.advance(part.facts.kept + sum(part.facts.removed.values()), part.size)

    def _advance(self, part: work.Part[LineFacts | EncodingFacts | Shard]) -> None:
        self.tracker.advance(part.facts.documents, part.size)


def _total(counts: Iterable[dict[str, int]]) -> Counter[str]:
    return sum(map(Counter, counts), Counter[str]())
