"""The end of a run: the model in Hugging Face form, the report, and the manifest that makes the model exist."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor
from torch.distributed.tensor import DTensor

from kindling_api.resolve import content_of
from kindling_api.v1alpha1.products import MODEL_FOLDER, REPORT, ModelManifest
from kindling_storage.commit import commit
from kindling_trainer.checkpoint.huggingface import export
from kindling_trainer.inputs import read_base
from kindling_trainer.models.initialize import plain_name
from kindling_trainer.progress import Reporter
from kindling_trainer.setup import Setup


def finish(setup: Setup, reporter: Reporter | None, validation_loss: float | None, confirm: Callable[[], None]) -> None:
    """Export the model and commit the run; all processes call it, the first (which has a reporter) writes.

    Raises:
        ConflictError: another attempt has taken the run over, as `confirm` finds.
        StorageError: the store cannot be written.
    """
    weights = _whole_weights(setup, reporter)
    if reporter is None:
        for _ in weights:  # take part in gathering them
            pass
        return
    tokenizer = setup.dataset.tokenizer
    files = export(
        setup.store.child(MODEL_FOLDER),
        weights,
        setup.shape,
        vocab_size=tokenizer.vocab_size,
        tokenizer=setup.dataset_store.get(tokenizer.path),
        end_of_document=tokenizer.end_of_document,
    )
    reporter.close()
    manifest = ModelManifest(
        key=setup.run.key,
        files=[entry.model_copy(update={"path": f"{MODEL_FOLDER}/{entry.path}"}) for entry in files],
        spec=content_of(setup.run.spec),
        dataset=setup.dataset.digest,
        dataset_uri=setup.dataset_store.uri,
        base=base.digest if (base := read_base(setup.run)) else None,
        tokenizer=tokenizer.digest,
        shape=setup.shape,
        vocab_size=tokenizer.vocab_size,
        steps=setup.steps,
        tokens=setup.steps * setup.plan.tokens,
        loss=reporter.last_loss,
        validation_loss=validation_loss,
    )
    from kindling_trainer.report import render  # not above: matplotlib takes half a second of every start

    confirm()
    setup.store.put(REPORT, render(reporter.course(setup.run, manifest)).encode())
    commit(setup.store, manifest)


def _whole_weights(setup: Setup, reporter: Reporter | None) -> Iterator[tuple[str, Tensor]]:
    """Each parameter whole, on the CPU, one at a time."""
    for name, parameter in setup.model.named_parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        if reporter is not None:
            reporter.beat()
        yield plain_name(name), whole.detach().cpu()
