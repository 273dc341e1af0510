"""The finished model on the Hugging Face Hub: tried before the training, done once after it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kindling_api.base import Status
from kindling_api.errors import StorageError
from kindling_api.logs import say
from kindling_api.v1alpha1.products import MODEL_FOLDER, ModelManifest
from kindling_api.v1alpha1.publish import PublishSpec
from kindling_storage import ObjectStore
from kindling_storage.hub.push import prepare, push

RECORD = "published.json"
"""In a run's folder: where its model is on the Hub. It is written after the commit there; where a process ends between
the two, the next one makes a second commit with the same files."""

log = logging.getLogger(__name__)


class HubCopy(Status):
    """A model that has been put on the Hub."""

    digest: str
    """Of the run's manifest."""
    to: str
    """The branch that was asked for."""
    at: str
    """The commit."""


def check_target(publish: PublishSpec | None) -> None:
    """Make sure, before anything is trained, that the Hub will take the model.

    Raises:
        StorageError: it will not, or does not answer.
    """
    if publish is not None:
        with _field():
            prepare(publish.place, private=publish.private)


def put_on_hub(store: ObjectStore, finished: ModelManifest, publish: PublishSpec) -> str:
    """Put the model in a run's folder on the Hub, unless it is there already.

    Returns:
        Where it is, with the commit.

    Raises:
        StorageError: the Hub refuses, or does not answer; the model stays where it is.
    """
    to = str(publish.place)
    if store.exists(RECORD):
        made = HubCopy.model_validate_json(store.get(RECORD))
        if (made.digest, made.to) == (finished.digest, to):
            return made.at
    say(log, f"putting the model on the Hub, at {to}")
    model = store.child(MODEL_FOLDER)
    with tempfile.TemporaryDirectory(prefix="kindling-publish-") as folder:
        files = {info.path: _local(model, info.path, Path(folder)) for info in model.list()}
        with _field(" The model is finished and stays: run the same again, and it is put there."):
            at = str(push(files, publish.place, digest=finished.digest, private=publish.private))
    store.put(RECORD, HubCopy(digest=finished.digest, to=to, at=at).model_dump_json(by_alias=True).encode())
    say(log, f"the model is at {at}")
    return at


@contextmanager
def _field(rest: str = "") -> Iterator[None]:
    """An error of the Hub begins with the field that names the place, and ends with `rest`."""
    try:
        yield
    except StorageError as error:
        raise type(error)(f"spec.publish.to: {error}{rest}") from error


def _local(model: ObjectStore, path: str, folder: Path) -> Path:
    """A file of the model on this machine."""
    if (there := model.local_path(path)) is not None:
        return there
    model.download(path, folder / path)
    return folder / path
