"""kopf as the engine of the watches, and only that: it shows objects, and the cache says whose turn it is.

Nothing is decided or written here, so nothing depends on kopf's handling of retries, finalizers or annotations.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Any

import kopf
from kopf._cogs.structs.references import (
    Insights,
    NamespaceName,
)  # what is watched: kopf has no public name for changing it

from kindling_api.base import API_VERSION
from kindling_operator import labels
from kindling_operator.cache import ObjectCache, is_ours
from kindling_operator.cluster import PLURALS

FIRST_BACKOFF, LONGEST_BACKOFF = 0.5, 10.0
"""Seconds between a watch's attempts to reach the API server; a watch never gives up."""

CANNOT_CREATE = "type=Warning,reason=FailedCreate"
"""The Events that are watched: a Job whose pods are refused says so in no other way."""

RENEW_SECONDS = 300
"""How long one request of a watch may last; the next one goes on from there."""


class Backoffs:
    """Growing delays with jitter, without end, each time it is iterated over."""

    def __iter__(self) -> Iterator[float]:
        for attempt in itertools.count():
            yield min(FIRST_BACKOFF * 2 ** min(attempt, 10), LONGEST_BACKOFF) * random.uniform(0.7, 1.0)


def registry(cache: ObjectCache, kinds: Sequence[tuple[str, str]]) -> kopf.OperatorRegistry:
    """Watches of these kinds, given as API version and kind, that fill the cache."""
    handlers = kopf.OperatorRegistry()
    kopf.on.login(registry=handlers)(kopf.login_via_client)
    for api_version, kind in kinds:
        group, _, version = api_version.rpartition("/")

        async def seen(event: Any, api_version: str = api_version, kind: str = kind, **_: Any) -> None:
            item = {**event["object"], "apiVersion": api_version, "kind": kind}
            if not is_ours(item):
                return
            if event["type"] == "DELETED":
                cache.gone(item)
            else:
                cache.saw(item)

        kopf.on.event(group=group, version=version, plural=PLURALS[kind], id=kind, registry=handlers)(seen)

    async def warned(event: Any, **_: Any) -> None:
        if event["type"] != "DELETED":
            cache.warned({**event["object"], "apiVersion": "v1", "kind": "Event"})

    kopf.on.event(group="", version="v1", plural="events", id="Event", registry=handlers)(warned)
    return handlers


async def watch_only(insights: Insights, namespaces: Sequence[str]) -> None:
    """Let kopf watch these namespaces from now on, and no others."""
    await insights.ready_namespaces.wait()
    async with insights.revised:
        if insights.namespaces != set(namespaces):
            insights.namespaces.clear()
            insights.namespaces.update(map(NamespaceName, namespaces))
            insights.revised.notify_all()


def settings(kinds: Sequence[tuple[str, str]]) -> kopf.OperatorSettings:
    """kopf's own settings: no writes, and watches that never fall silent for good."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.scanning.disabled = True  # or it would need to read all CustomResourceDefinitions and Namespaces
    chosen.networking.error_backoffs = Backoffs()
    chosen.networking.connect_timeout = 10
    chosen.watching.connect_timeout = 10
    chosen.watching.server_timeout = RENEW_SECONDS
    chosen.watching.client_timeout = RENEW_SECONDS + 30
    chosen.watching.chunk_size = 250
    chosen.queueing.idle_timeout = 1.0
    chosen.process.ultimate_exiting_timeout = 20
    chosen.watching.field_selectors["", "v1", "events"] = CANNOT_CREATE
    for api_version, kind in kinds:
        if api_version != API_VERSION:
            group, _, version = api_version.rpartition("/")
            chosen.watching.label_selectors[group, version, PLURALS[kind]] = labels.KIND
    return chosen
