"""Reading everything anew, past the watches: at the start, and every few minutes in case something was missed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from kindling_api.base import API_VERSION
from kindling_api.references import Reference
from kindling_operator import labels
from kindling_operator.cache import ObjectCache, is_ours
from kindling_operator.children import key_of_object
from kindling_operator.cluster import Cluster, ClusterError
from kindling_operator.queue import Queue

EVERY_SECONDS = (300.0, 600.0)
"""From the end of one resync to the next: anywhere between, so that replicas and restarts do not fall into step."""

SPREAD_SECONDS = 60.0
"""Over which the documents are looked at again after a resync."""

log = logging.getLogger(__name__)


async def fill(
    cluster: Cluster, cache: ObjectCache, kinds: Sequence[tuple[str, str]], namespaces: Sequence[str]
) -> None:
    """Bring the cache to what the API server has now in these namespaces; the empty name means all of them.

    Raises:
        ClusterError: it did not answer. What may not be read is left out, with a warning.
    """
    for namespace in namespaces:
        for api_version, kind in kinds:
            versions = cache.versions(api_version, kind)
            known = {key: version for key, version in versions.items() if namespace in ("", key.namespace)}
            selector = "" if api_version == API_VERSION else labels.KIND
            try:
                async for item in cluster.list(api_version, kind, namespace, labels=selector):
                    if is_ours(item):
                        known.pop(key_of_object(item), None)
                        cache.learned(item)
            except ClusterError as error:
                if error.status != 403:
                    raise
                log.warning("%s in %s may not be read: %s", kind, namespace or "all namespaces", error)
                continue
            for key, version in known.items():
                cache.forget(key, version)


async def resync(
    cluster: Cluster,
    cache: ObjectCache,
    queue: Queue[Reference],
    kinds: Sequence[tuple[str, str]],
    namespaces: Callable[[], Sequence[str]],
) -> None:
    """Read and look at everything again, every few minutes, until cancelled."""
    while True:
        await asyncio.sleep(random.uniform(*EVERY_SECONDS))
        try:
            await fill(cluster, cache, kinds, namespaces())
        except ClusterError as error:
            log.warning("the resync is put off: %s", error)
            continue
        for reference, _ in list(cache.documents()):
            queue.add_after(reference, random.uniform(0, SPREAD_SECONDS))
