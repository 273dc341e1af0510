"""A run keeps the storage that it was accepted with; one of an earlier version, whose status has none, gets it here."""

from __future__ import annotations

from kindling_operator.draft import Draft
from kindling_operator.storages import is_assumed


def keeping(draft: Draft) -> Draft:
    """What is not known for certain is told."""
    storage = draft.storage
    if not draft.status.attempt or draft.status.storage is not None or storage is None:
        return draft
    if is_assumed(draft.world.resource.get("status") or {}, storage, draft.world.settings):
        how = "with the endpoint, the region and the Secret of the installation's default storage of today"
        draft = draft.emit_event("Warning", "StorageAssumed", f"Its products are taken to be in {storage.uri}, {how}.")
    return draft.update(storage=storage)
