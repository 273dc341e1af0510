"""The stages of one `kindling run`, one after another, each in a process of its own."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from kindling_api.base import short_key
from kindling_api.documents import Document
from kindling_api.errors import EXIT_SIGNALLED, EXIT_USER, KindlingError, SpecError, StorageError, explain
from kindling_api.references import Reference, reference_to, uses
from kindling_api.resolve import Finished, Waiting, resolve
from kindling_api.v1alpha1.dataset_build import DatasetBuild
from kindling_api.v1alpha1.products import DatasetManifest, ModelManifest
from kindling_api.v1alpha1.runfile import RunFile
from kindling_api.v1alpha1.status import DatasetResult, Failure, ModelResult
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_api.v1alpha1.tracking import TrackingSpec
from kindling_cli.child_process import ChildProcess, last_lines
from kindling_cli.product_folders import file_uri, shown
from kindling_cli.rows import StageRow
from kindling_cli.screen import Screen
from kindling_runtime.signals import Stopped
from kindling_storage import open_store
from kindling_storage.commit import faults_of
from kindling_storage.hub.push import check_token
from kindling_storage.names import lookup

NEEDS = {"DatasetBuild": "ray", "PretrainRun": "torch", "AlignmentRun": "torch"}
"""A package that is there when what the stage needs is installed, and only then."""
POLL_SECONDS = 0.2
LOG_LINES = 8
LOG_LINES_VERBOSE = 60


class StageError(KindlingError):
    """A stage failed; the exit code is the child's."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Interrupts:
    """Counts Ctrl-C and SIGTERM while the flow runs, instead of dying of them."""

    def __init__(self) -> None:
        self.count = 0
        self.last = signal.SIGINT

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._count) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells say it."""
        return EXIT_SIGNALLED + self.last

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.last = signal.Signals(number)


class Flow:
    """Runs documents in the order given; what each makes is there for those that refer to it.

    Args:
        folder: a private folder for run files and progress documents.
    """

    def __init__(
        self,
        documents: Sequence[Document],
        *,
        storage: StorageSpec,
        screen: Screen,
        folder: Path,
        verbose: bool = False,
    ) -> None:
        self.rows = [StageRow(str(reference_to(document))) for document in documents]
        self._documents = documents
        self._storage = storage
        self._screen = screen
        self._folder = folder
        self._verbose = verbose
        self._finished: dict[Reference, Finished] = {}

    def run(self, interrupts: Interrupts) -> None:
        """Run all stages.

        Raises:
            StageError: a stage failed; the stages before it are finished and stay.
            SpecError: a document refers to what is neither finished nor part of the flow.
            StorageError: the store cannot be written.
            Stopped: the user asked for it; the stage under way has saved, or was killed.
        """
        self._screen.show(self.rows)
        for document, row in zip(self._documents, self.rows, strict=True):
            run_file = self._resolve(document)
            before = _whole_product(run_file.output, reference_to(document))
            result = self._run_stage(run_file, row, interrupts)
            row.state = "reused" if before and before.digest == result.digest else "done"
            self._finished[reference_to(document)] = Finished(uri=result.uri, digest=result.digest)
            self._screen.show(self.rows)

    def _resolve(self, document: Document) -> RunFile:
        resolved = resolve(document, storage=self._storage, finished=self._finished)
        if not isinstance(resolved, Waiting):
            return resolved
        for use in uses(document):  # not part of this flow: the newest of that name in the store, of whichever kind
            if any(reference in self._finished for reference in use.candidates):
                continue
            products = {reference: finished_product(self._storage, reference) for reference in use.candidates}
            found = {reference: product for reference, product in products.items() if product is not None}
            if use.candidates and not found:
                raise _not_finished(document, use.candidates[0], self._storage)
            self._finished |= found
        return self._resolve(document)

    def _run_stage(self, run_file: RunFile, row: StageRow, interrupts: Interrupts) -> DatasetResult | ModelResult:
        started, signalled = time.monotonic(), interrupts.count
        row.state = "running"
        with ChildProcess(run_file, folder=self._folder, log=self._log(run_file)) as stage:
            while not stage.wait(POLL_SECONDS):
                progress, row.seconds, before = stage.progress(), time.monotonic() - started, row.stage
                row.progress = progress if progress.state == "Running" else row.progress
                row.stage_began = row.stage_began if row.stage == before else row.seconds
                if interrupts.count > signalled:
                    signalled += 1
                    row.state = "stopping"
                    stage.stop() if signalled == 1 else stage.kill()
                self._screen.show(self.rows)
        row.progress, row.seconds = stage.last_word(), time.monotonic() - started
        if row.progress.result is not None:
            return row.progress.result
        row.state = "stopped" if interrupts.count else "failed"
        self._screen.show(self.rows)
        if interrupts.count:
            raise Stopped(interrupts.last)
        raise StageError(self._failure_message(stage, row), stage.exit_code)

    def _failure_message(self, stage: ChildProcess, row: StageRow) -> str:
        failure = row.progress.failure
        assert failure is not None
        if stage.exit_code == EXIT_USER and not self._verbose:
            return f"{row.title}: {failure.message}"
        message = f"{row.title}: {failure.message}{_where(failure)}"
        lines = last_lines(stage.log, LOG_LINES_VERBOSE if self._verbose else LOG_LINES)
        quoted = "\n".join(f"  | {line}" for line in lines)
        return f"{message}\n{quoted}\nWhole log: {shown(file_uri(stage.log))}"

    def _log(self, run_file: RunFile) -> Path:
        """Where the child's stderr goes: beside the products in a folder store, else among the temporary files.

        Raises:
            StorageError: nothing can be written there.
        """
        name = f"{run_file.kind}-{run_file.name}-{short_key(run_file.key)}.log"
        log = open_store(self._storage).local_path(f"logs/{name}") or Path(tempfile.gettempdir()) / f"kindling-{name}"
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            log.touch()
        except OSError as error:
            found = f"{shown(self._storage.uri)}, where nothing can be written ({(error.strerror or 'fault').lower()})"
            allowed, remedy = "a folder of yours, or a place where one can be made", "choose another --store"
            raise StorageError(explain("store", found=found, allowed=allowed, remedy=remedy)) from None
        return log


def _where(failure: Failure) -> str:
    parts = [f"rank {failure.rank}"] if failure.rank is not None else []
    if failure.signal and failure.signal not in failure.message:
        parts.append(failure.signal)
    return f" ({', '.join(parts)})" if parts else ""


def finished_product(storage: StorageSpec, reference: Reference) -> Finished | None:
    """The newest finished product of that name in a store."""
    found = lookup(open_store(storage), reference.kind, reference.namespace, reference.name)
    return Finished(uri=found.uri, digest=found.digest) if found else None


def _whole_product(storage: StorageSpec, reference: Reference) -> Finished | None:
    """The same, unless it is damaged, so that there is work to do for it."""
    found = finished_product(storage, reference)
    model = DatasetManifest if reference.kind == "DatasetBuild" else ModelManifest
    opened = open_store(found.uri, endpoint=storage.endpoint, region=storage.region) if found else None
    return found if opened is not None and not faults_of(opened, model) else None


def check_runnable(documents: Sequence[Document], storage: StorageSpec) -> None:
    """Refuse, before anything starts, what cannot run on this machine, or not without other documents.

    Raises:
        ModuleNotFoundError: a package that a stage needs is not installed.
        SpecError: a document refers to what is neither finished nor among `documents`; or a tracker does not answer.
        RefusedError: a model is to be published, or shown in a tracker, and there is no token.
    """
    known = {reference_to(document) for document in documents}
    is_finished = cache(lambda reference: finished_product(storage, reference) is not None)
    for document in documents:
        if find_spec(NEEDS[document.kind]) is None:
            raise ModuleNotFoundError(name=NEEDS[document.kind])
        if not isinstance(document, DatasetBuild) and document.spec.publish is not None:
            check_token(f"{reference_to(document)}: spec.publish.to")
        if not isinstance(document, DatasetBuild) and document.spec.tracking is not None:
            before = {candidate for use in uses(document) for candidate in use.candidates} & known
            later = not all(map(is_finished, before))
            _check_tracker(document.spec.tracking, f"{reference_to(document)}: spec.tracking", comes_later=later)
        for use in uses(document):
            there = [each in known or is_finished(each) for each in use.candidates]
            if there and not any(there):
                raise _not_finished(document, use.candidates[0], storage)


def _check_tracker(tracking: TrackingSpec, where: str, *, comes_later: bool) -> None:
    """A run that others come before tells now, and not after them, that nothing answers."""
    from kindling_trainer.telemetry.trackers import check_client, check_server  # not above: builds need no trainer

    check_client(tracking, where)
    if comes_later:
        check_server(tracking, where)


def _not_finished(document: Document, reference: Reference, storage: StorageSpec) -> SpecError:
    return SpecError(
        explain(
            str(reference_to(document)),
            found=f"a reference to {reference}, which is not finished in {shown(storage.uri)}",
            allowed="what is finished, or part of this run",
            remedy=f"run {reference} first, or leave out --only",
        )
    )
