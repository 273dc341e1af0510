"""The checkpoints of a run: how their folders are called, which is the newest good one, which may go."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

from kindling_api.errors import IntegrityError
from kindling_api.v1alpha1.products import MANIFEST, CheckpointManifest
from kindling_storage import ObjectStore
from kindling_storage.commit import read_manifest, verify

CHECKPOINTS = "checkpoints"
_FOLDER = re.compile(r"step-(\d{8})-a(\d+)")

log = logging.getLogger(__name__)


@dataclass(frozen=True, order=True)
class Folder:
    """One checkpoint's folder, ordered by age: by step, and then by attempt."""

    step: int
    attempt: int

    @property
    def name(self) -> str:
        """As in `step-00000200-a1`: an attempt never writes where an earlier one did."""
        return f"step-{self.step:08d}-a{self.attempt}"


def folders(run: ObjectStore) -> dict[Folder, bool]:
    """All checkpoint folders of the run in `run`, oldest first, and whether each is committed."""
    found: dict[Folder, bool] = {}
    for info in run.child(CHECKPOINTS).list():
        name, _, path = info.path.partition("/")
        if match := _FOLDER.fullmatch(name):
            folder = Folder(int(match[1]), int(match[2]))
            found[folder] = found.get(folder, False) or path == MANIFEST
    return dict(sorted(found.items()))


def checkpoint_store(run: ObjectStore, folder: Folder) -> ObjectStore:
    """The place of one checkpoint."""
    return run.child(f"{CHECKPOINTS}/{folder.name}")


def newest_whole(
    run: ObjectStore, *, until: int | None = None, damaged: Callable[[str], object] = bool
) -> tuple[Folder, CheckpointManifest] | None:
    """The newest checkpoint of which every byte is as its manifest promises; None where there is none.

    One that is torn or damaged is passed over with a warning that says why.

    Args:
        until: the most steps that it may have; None: any.
        damaged: hears of those that were committed.
    """
    for folder, committed in reversed(folders(run).items()):
        if until is not None and folder.step > until:
            continue
        problem = "it was never committed"
        if committed:
            try:
                manifest = read_manifest(checkpoint_store(run, folder), CheckpointManifest)
                assert manifest is not None
                problem = next(verify(checkpoint_store(run, folder), manifest), "")
            except IntegrityError as error:
                problem = str(error)
            else:
                if not problem:
                    return folder, manifest
        log.warning("checkpoint %s is passed over: %s", folder.name, problem)
        if committed:
            damaged(f"checkpoint {folder.name} is passed over: {problem}")
    return None


def prune(run: ObjectStore, keep: int, *, bests: bool = False) -> None:
    """Delete all but the `keep` newest committed checkpoints, and what dead attempts left half-written.

    Args:
        bests: whether those stay, too, that these name as the best so far.
    """
    found = folders(run)
    committed = [folder for folder, is_committed in found.items() if is_committed]
    kept = set(committed[-keep:])
    if bests:
        manifests = [read_manifest(checkpoint_store(run, folder), CheckpointManifest) for folder in kept]
        steps = {manifest.best.step for manifest in manifests if manifest is not None and manifest.best is not None}
        kept |= {folder for folder in committed if folder.step in steps}
    for folder in found:
        if folder not in kept:
            _delete(run, folder)


def drop_after(run: ObjectStore, step: int) -> None:
    """Delete the checkpoints of more steps, the newest first; nobody is writing one."""
    for folder in reversed(folders(run)):
        if folder.step > step:
            _delete(run, folder)


def _delete(run: ObjectStore, folder: Folder) -> None:
    """A folder loses its manifest first, so that one half-deleted is never taken for whole."""
    store = checkpoint_store(run, folder)
    store.delete(MANIFEST)
    store.delete_prefix("")
