"""What the watches have shown so far, so that looking at a run costs no request.

Objects come in from three sides: the watches, the lists at the start and at each resync, and the answers to the
operator's own writes. The newest version wins, whoever brought it. What did not come from a watch must be shown by
the watch, too, before long: that is how a watch that has gone deaf is found out (see `health`).
"""

from __future__ import annotations

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kindling_api.base import API_VERSION
from kindling_api.documents import KINDS
from kindling_api.references import Reference
from kindling_operator.children import key_of_object
from kindling_operator.labels import KIND, NAME
from kindling_operator.world import Object, ObjectKey

BATCH, RAY = "batch/v1", "ray.io/v1"
CHILDREN = ((BATCH, "Job"), (RAY, "RayJob"), ("v1", "Pod"), ("apps/v1", "Deployment"))
"""The kinds that belong to a run and say how it goes."""
WATCHED = (*((API_VERSION, kind) for kind in KINDS), *CHILDREN)

KEPT_OF_SPEC = {
    "Job": ("suspend", "parallelism", "completions"),
    "RayJob": ("suspend",),
    "Pod": ("nodeName",),
    "Deployment": (),
}
"""The parts of a child's spec that are kept; templates are most of an object and decide nothing."""

MOST_WARNINGS = 4096
"""Events kept, of all Jobs."""


@dataclass(slots=True)
class _Entry:
    item: Object
    version: int
    unconfirmed_since: float | None
    """Since when (monotonic seconds) the watch has not shown this object's newest version; None: it has."""


class ObjectCache:
    """The newest known version of every document, and of every Job, RayJob and pod of one.

    Events are no objects in this sense: the newest about a Job is kept as long as the Job.
    """

    def __init__(self, notify: Callable[[Reference], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`notify` is called with each document that has to be looked at again."""
        self._notify = notify
        self._clock = clock
        self._entries: dict[ObjectKey, _Entry] = {}
        self._children: defaultdict[Reference, set[ObjectKey]] = defaultdict(set)
        self._targets: dict[Reference, frozenset[Reference]] = {}
        self._referrers: defaultdict[Reference, set[Reference]] = defaultdict(set)
        self._warnings: OrderedDict[ObjectKey, Object] = OrderedDict()

    def document(self, reference: Reference) -> Object | None:
        """A document as the API server has it, with its status."""
        entry = self._entries.get(_document_key(reference))
        return entry.item if entry else None

    def documents(self) -> Iterator[tuple[Reference, Object]]:
        """All documents."""
        for key, entry in self._entries.items():
            if key.api_version == API_VERSION:
                yield Reference(key.kind, key.namespace, key.name), entry.item  # type: ignore[arg-type]

    def children(self, reference: Reference, kind: str) -> list[Object]:
        """The children of one kind that carry the labels of a document, by name."""
        keys = [key for key in self._children.get(reference, ()) if key.kind == kind]
        return [self._entries[key].item for key in sorted(keys, key=lambda key: key.name)]

    def warnings(self, jobs: Iterable[Object]) -> list[Object]:
        """The newest Event of each Job, if any, that says why its pods cannot be made."""
        found = ((job, self._warnings.get(key_of_object(job))) for job in jobs)
        return [event for job, event in found if event and event["involvedObject"].get("uid") == job["metadata"]["uid"]]

    def warned(self, event: Object) -> None:
        """A watch shows an Event of that kind; it may do so before the Job itself is known."""
        about = event["involvedObject"]
        key = ObjectKey(BATCH, "Job", about.get("namespace", ""), about.get("name", ""))
        self._warnings.pop(key, None)
        self._warnings[key] = _trimmed(event)
        if len(self._warnings) > MOST_WARNINGS:
            self._warnings.popitem(last=False)
        if entry := self._entries.get(key):
            self._notify_run(run_of(entry.item))

    def saw(self, item: Object) -> None:
        """A watch shows the object."""
        key, version = key_of_object(item), version_of(item)
        entry = self._entries.get(key)
        if entry and version <= entry.version:
            entry.unconfirmed_since = None if version == entry.version else _later(entry, self._clock())
            return
        self._put(key, _Entry(_trimmed(item), version, None))
        self._notify_run(run_of(item))

    def gone(self, item: Object) -> None:
        """A watch says that the object is deleted, or a look at the API server did."""
        self.forget(key_of_object(item), version_of(item))

    def learned(self, item: Object) -> None:
        """A list, or the answer to a write, brought the object; nobody is told but those who refer to it."""
        key, version = key_of_object(item), version_of(item)
        entry = self._entries.get(key)
        if entry is None or version > entry.version:
            since = entry.unconfirmed_since if entry else None
            self._put(key, _Entry(_trimmed(item), version, self._clock() if since is None else since))

    def forget(self, key: ObjectKey, version: int) -> None:
        """The object is known to be gone that had this version; what has its name and is newer stays."""
        entry = self._entries.get(key)
        if entry is None or entry.version > version:
            return
        del self._entries[key]
        self._warnings.pop(key, None)
        run = run_of(entry.item)
        if key.api_version != API_VERSION:
            self._children[run].discard(key)
            if not self._children[run]:
                del self._children[run]
        else:
            self.refers(run, ())
            self._notify_referrers(run)
        self._notify_run(run)

    def leave(self, namespace: str) -> None:
        """Forget all that is in a namespace, which is not watched any more."""
        for key, entry in list(self._entries.items()):
            if key.namespace == namespace:
                self.forget(key, entry.version)

    def versions(self, api_version: str, kind: str) -> dict[ObjectKey, int]:
        """The names of all known objects of a kind, each with its resourceVersion."""
        entries = self._entries.items()
        return {key: entry.version for key, entry in entries if (key.api_version, key.kind) == (api_version, kind)}

    def version(self, key: ObjectKey) -> int:
        """The resourceVersion of an object; 0 where it is not known."""
        entry = self._entries.get(key)
        return entry.version if entry else 0

    def refers(self, reference: Reference, targets: Iterable[Reference]) -> None:
        """Note whom a document refers to: it is looked at again whenever one of them comes, goes or ends."""
        wanted, before = frozenset(targets), self._targets.pop(reference, frozenset())
        for target in before - wanted:
            self._referrers[target].discard(reference)
        for target in wanted:
            self._referrers[target].add(reference)
        if wanted:
            self._targets[reference] = wanted

    def unconfirmed(self, *, longer_than: float) -> list[ObjectKey]:
        """Objects whose newest version no watch has shown for so many seconds."""
        before = self._clock() - longer_than
        entries = self._entries.items()
        return [key for key, entry in entries if entry.unconfirmed_since and entry.unconfirmed_since < before]

    def _put(self, key: ObjectKey, entry: _Entry) -> None:
        before = self._entries.get(key)
        self._entries[key] = entry
        run = run_of(entry.item)
        if key.api_version != API_VERSION:
            self._children[run].add(key)
        elif before is None or _outcome(before.item) != _outcome(entry.item):
            self._notify_referrers(run)

    def _notify_run(self, run: Reference) -> None:
        if _document_key(run) in self._entries or run in self._children:
            self._notify(run)

    def _notify_referrers(self, target: Reference) -> None:
        for referrer in self._referrers.get(target, ()):
            self._notify(referrer)


def run_of(item: Object) -> Reference:
    """The document that an object is, or is a child of by its labels."""
    metadata = item["metadata"]
    if item["apiVersion"] == API_VERSION:
        return Reference(item["kind"], metadata["namespace"], metadata["name"])
    labels = metadata["labels"]
    return Reference(labels[KIND], metadata["namespace"], labels[NAME])


def is_ours(item: Object) -> bool:
    """Whether an object is a document, or carries the labels of a child of one."""
    labels = item["metadata"].get("labels") or {}
    return item["apiVersion"] == API_VERSION or (labels.get(KIND) in KINDS and NAME in labels)


def version_of(item: Object) -> int:
    """The resourceVersion, which grows with every change to anything in the cluster."""
    return int(item["metadata"]["resourceVersion"])


def _later(entry: _Entry, now: float) -> float | None:
    """The watch lives, and is only behind: the wait for it begins anew."""
    return None if entry.unconfirmed_since is None else now


def _outcome(item: Object) -> tuple[Any, ...]:
    """What referrers want to know of a document."""
    status = item.get("status") or {}
    return item["metadata"]["uid"], status.get("phase"), (status.get("result") or {}).get("digest")


def _trimmed(item: Object) -> Object:
    metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
    kept = KEPT_OF_SPEC.get(item["kind"])
    if kept is None:
        return {**item, "metadata": metadata}
    spec = {name: value for name, value in (item.get("spec") or {}).items() if name in kept}
    return {**item, "metadata": metadata, "spec": spec}


def _document_key(reference: Reference) -> ObjectKey:
    return ObjectKey(API_VERSION, reference.kind, reference.namespace, reference.name)
