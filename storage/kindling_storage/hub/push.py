"""A model put on the Hub: all of its files in one commit, so that nobody there ever sees a part of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kindling_api.errors import RefusedError, explain
from kindling_api.hub import MAIN, HubUri
from kindling_storage.hub.errors import TOKEN, asking, endpoint


def check_token(where: str) -> None:
    """Make sure that there is a token at all; the Hub is not asked.

    Args:
        where: what asks for one, with which the error begins.

    Raises:
        RefusedError: there is none.
    """
    from huggingface_hub import get_token

    if get_token() is None:
        remedy = f"set {TOKEN} to a token that may write, or `hf auth login`"
        raise RefusedError(explain(where, found="no token", allowed="one that may write there", remedy=remedy))


def prepare(place: HubUri, *, private: bool) -> None:
    """Make sure that a model can be put at `place`, before there is one: the repository is made where there is none.

    Raises:
        RefusedError: there is no token, or it may not write there.
        NotFoundError: no such branch.
        UnreachableError: the Hub does not answer.
    """
    from huggingface_hub import HfApi  # not above: it takes a third of a second to load

    check_token(str(place))
    hub = HfApi(endpoint=endpoint())
    if place.revision == MAIN:
        asking(place, "", lambda: hub.create_repo(place.name, private=private, exist_ok=True))
    else:
        asking(place, "", lambda: hub.repo_info(place.name, revision=place.revision))


def push(files: Mapping[str, Path], place: HubUri, *, digest: str | None, private: bool) -> HubUri:
    """Put files into a model's repository, which is made where there is none; others in it stay.

    Args:
        files: local files, by their paths in the repository.
        digest: of the manifest of the run that made them, which the commit's message tells; None where there is none.
        private: whether a new repository is to be seen by its owner alone.

    Returns:
        The repository at the commit.

    Raises:
        RefusedError: there is no token, or it may not write there.
        NotFoundError: no such branch.
        UnreachableError: the Hub does not answer; nothing has changed there, and another try goes on.
    """
    from huggingface_hub import CommitOperationAdd, HfApi  # not above: it takes a third of a second to load

    prepare(place, private=private)
    hub = HfApi(endpoint=endpoint())
    message = "Upload with Kindling" + (f"\n\nManifest {digest}" if digest is not None else "")
    operations = [CommitOperationAdd(path, str(local)) for path, local in sorted(files.items())]
    made = asking(
        place, "", lambda: hub.create_commit(place.name, operations, commit_message=message, revision=place.revision)
    )
    return HubUri(place.kind, place.name, made.oid)
