"""The end of a run: the model in Hugging Face form, the report, and the manifest that makes the model exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import Tensor

from kindling_api.hub import is_hub
from kindling_api.resolve import content_of
from kindling_api.v1alpha1.products import ADAPTER_FOLDER, MODEL_FOLDER, REPORT, FileEntry, ModelManifest
from kindling_storage.commit import commit
from kindling_trainer.checkpoint.huggingface import export
from kindling_trainer.checkpoint.huggingface.peft import export_adapter, fingerprint, fingerprinted
from kindling_trainer.data.inputs import learns_tokens
from kindling_trainer.loop.divergence import divergence
from kindling_trainer.loop.objective import Evaluation
from kindling_trainer.loop.setup import Setup
from kindling_trainer.models.lora import is_adapter, merged
from kindling_trainer.models.scored import is_scored
from kindling_trainer.parallel.pipeline import whole_parameters
from kindling_trainer.telemetry.metrics import BEFORE
from kindling_trainer.telemetry.reporter import Reporter

VALUE = "value.weight"
"""The parameter of a value head."""


def finish(setup: Setup, reporter: Reporter | None, evaluation: Evaluation, confirm: Callable[[], None]) -> None:
    """Export the model and commit the run; all processes call it, the first (which has a reporter) writes.

    Raises:
        ConflictError: another attempt has taken the run over, as `confirm` finds.
        StorageError: the store cannot be written.
    """
    aside = _Aside()
    weights = _whole_weights(setup, reporter, aside)
    if reporter is None:
        for _ in weights:  # take part in gathering them
            pass
        return
    vocabulary, origin = setup.vocabulary, setup.origin
    files = export(
        setup.store.child(MODEL_FOLDER),
        weights,
        setup.shape,
        vocab_size=vocabulary.size,
        tokenizer=vocabulary.file,
        end_of_document=vocabulary.end_of_document,
        special=vocabulary.special,
        chat=vocabulary.chat,
        scored=is_scored(setup.model),
    )
    entries = _export_adapter(setup, aside) + _in_folder(MODEL_FOLDER, files)
    reporter.close()
    best = setup.best.found
    steps = setup.steps if best is None else best.step
    manifest = ModelManifest(
        key=setup.run.key,
        files=entries,
        spec=content_of(setup.run.spec),
        dataset=origin.dataset,
        dataset_uri=origin.dataset_uri,
        inputs=origin.inputs,
        base=origin.base,
        base_uri=_hub_base(setup),
        tokenizer=vocabulary.digest,
        shape=setup.shape,
        vocab_size=vocabulary.size,
        steps=steps,
        tokens=steps * setup.plan.tokens,
        loss=reporter.last_loss,
        validation_loss=evaluation.loss,
        evaluation=_before_and_after(reporter.first_evaluation(), evaluation),
        divergence=divergence(reporter.losses()) if learns_tokens(setup.run) else None,
        skipped=tuple(setup.skipped) or None,
        best=best,
    )
    from kindling_trainer.telemetry.report import render  # not above: matplotlib takes half a second of every start

    confirm()
    setup.store.put(REPORT, render(reporter.course(setup.run, manifest, setup.plan)).encode())
    commit(setup.store, manifest)


@dataclass
class _Aside:
    """What is kept of the weights of a run with adapters while they go by."""

    parts: dict[str, Tensor] = field(default_factory=dict)
    """What its base does not have."""
    base: str = ""
    """The fingerprint of the base."""


def _export_adapter(setup: Setup, aside: _Aside) -> list[FileEntry]:
    """The files of the adapters; none where the run has none."""
    if setup.lora is None:
        return []
    assert aside.base, "the weights have gone by"
    folder, hub = setup.store.child(ADAPTER_FOLDER), _hub_base(setup)
    files = export_adapter(folder, aside.parts, setup.shape, setup.lora, base_uri=hub, base=aside.base)
    return _in_folder(ADAPTER_FOLDER, files)


def _in_folder(folder: str, files: list[FileEntry]) -> list[FileEntry]:
    return [entry.model_copy(update={"path": f"{folder}/{entry.path}"}) for entry in files]


def _hub_base(setup: Setup) -> str | None:
    given = setup.run.base if setup.run.kind == "AlignmentRun" else setup.run.initialize
    return given.uri if given is not None and is_hub(given.uri) else None


def _before_and_after(before: dict[str, float], found: Evaluation) -> dict[str, float] | None:
    """The figures of the last evaluation, beside those of the base, where it was evaluated, too."""
    if not before and not found.figures:
        return None
    after = found.figures if found.loss is None else found.figures | {"validation_loss": found.loss}
    return {f"{name}{BEFORE}": value for name, value in before.items()} | after


def _whole_weights(setup: Setup, reporter: Reporter | None, aside: _Aside) -> Iterator[tuple[str, Tensor]]:
    """Each parameter of the language model whole, on the CPU, one at a time, with its adapter; `aside` is filled on the
    way."""

    def found() -> Iterator[tuple[str, Tensor]]:
        for name, whole in whole_parameters(setup.model, setup.ranks):
            if reporter is not None:
                reporter.beat()
            if reporter is not None and setup.lora is not None and name == fingerprinted(setup.shape):
                aside.base = fingerprint(whole)
            if is_adapter(name) or (setup.lora is not None and name in _added(setup)):
                aside.parts[name] = whole if is_adapter(name) or whole.dim() == 1 else whole[: setup.vocabulary.size]
            if name != VALUE:  # it has served
                yield name, whole

    return found() if setup.lora is None else merged(found(), setup.lora.scale)


def _added(setup: Setup) -> set[str]:
    """The parameters, beside the adapters, that a run's base has not, or not with all rows."""
    rows = {"embedding.weight"} if setup.vocabulary.size > (setup.vocabulary.base_rows or 0) else set()
    if is_scored(setup.model):
        return rows | {"head.weight"}
    return rows | {"head.weight"} if rows and not setup.shape.tied_embeddings else rows
