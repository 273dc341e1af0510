"""`python -m kindling_storage.cleanup --storage-json JSON --prefix FOLDER`: delete a product that nobody wants.

The name that leads to the product goes first, then its manifest, without which it does not exist, and then the rest.
What another document's name leads to stays, for two documents that ask for the same work share it; and so does what is
not finished and another document was the last to work at. A later document of the same name is another one: on a
cluster UIDs tell them apart. Doing it again is fine.

Exit code 0: it is gone, or was not there, or is another's too. 3: it was not there, although --must-exist says that it
is. 2: it was refused. 1: the store was away, or we are at fault; it may be run again.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys

from pydantic import ValidationError

from kindling_api import logs
from kindling_api.errors import EXIT_DONE, EXIT_NOTHING, KindlingError, NotFoundError, SpecError, explain
from kindling_api.v1alpha1.products import MANIFEST
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage.holder import read_holder
from kindling_storage.lock import LOCK, lock
from kindling_storage.names import lookup_all, unpublish
from kindling_storage.opening import open_store
from kindling_storage.store import ObjectStore

FOLDERS = re.compile(r"(datasets|models)/[0-9a-f]{16}")
"""What may be deleted: one product, in the folder of its key."""

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Delete what the arguments say; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m kindling_storage.cleanup", description=__doc__)
    parser.add_argument("--storage-json", required=True, help="the store, as in a document's spec.storage")
    parser.add_argument("--prefix", required=True, metavar="FOLDER", help="as in models/0123456789abcdef")
    parser.add_argument(
        "--name", metavar="KIND/NAMESPACE/NAME", help="the document that goes; without it, all that lead to FOLDER"
    )
    parser.add_argument("--uid", help="its UID; without it, documents of one name count as one")
    parser.add_argument("--must-exist", action="store_true", help="FOLDER is known to hold something")
    logs.add_option(parser)
    options = parser.parse_args(arguments)
    logs.set_up(options.log)
    try:
        store = _store(options.storage_json)
        found = delete_product(store, options.prefix, options.name, options.uid)
    except KindlingError as error:
        log.error("%s", error)
        return error.exit_code
    if found or not options.must_exist:
        return EXIT_DONE
    remedy = "see whether it was moved, or deleted by hand; if it lies elsewhere, delete it there"
    log.error("%s", explain(store.child(options.prefix).uri, found="nothing", allowed="the product", remedy=remedy))
    return EXIT_NOTHING


def delete_product(store: ObjectStore, folder: str, name: str | None = None, uid: str | None = None) -> bool:
    """Delete the product in `folder` of `store`, for the document `name` with this `uid`; see above.

    Returns:
        Whether there was anything of it.

    Raises:
        SpecError: `folder` is not the folder of a product.
        ConflictError: a process works there.
        StorageError: the store cannot be reached, or refuses.
    """
    if not FOLDERS.fullmatch(folder):
        allowed, remedy = "datasets/<key> or models/<key>, 16 hexadecimal digits", "name the product's own folder"
        raise SpecError(explain("--prefix", found=repr(folder), allowed=allowed, remedy=remedy))
    product = store.child(folder)
    leading = {other: published.uid for other, published in lookup_all(store) if published.uri == product.uri}
    own = {other for other, whose in leading.items() if name is None or (other == name and _is_same(whose, uid))}
    for leaving in own:
        unpublish(store, leaving)
        log.info("the name %s is gone", leaving)
    if others := sorted(leading.keys() - own):
        log.info("%s stays: it is the product of %s, too", product.uri, " and ".join(others))
        return True
    if not product.exists(MANIFEST) and not _is_same(_last_at_work(product), uid):
        log.info("%s stays: another document was the last to work there", product.uri)
        return True
    with lock(product, LOCK):
        found = any(one.path != LOCK for one in product.list())
        product.delete(MANIFEST)
        product.delete_prefix("")
    product.delete(LOCK)
    log.info("%s is gone", product.uri)
    return found


def _is_same(one: str | None, other: str | None) -> bool:
    """Whether two UIDs may be of the same document; where one is not known, the name decides."""
    return one is None or other is None or one == other


def _last_at_work(product: ObjectStore) -> str | None:
    """UID of the document of which a process was the last to have the folder's lock; None where nobody said."""
    try:
        uid = read_holder(product.get(LOCK)).get("uid")
    except NotFoundError:
        return None
    return uid if isinstance(uid, str) else None


def _store(text: str) -> ObjectStore:
    try:
        return open_store(StorageSpec.model_validate_json(text))
    except ValidationError as error:
        remedy = "give the document's spec.storage as JSON"
        found = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise SpecError(explain("--storage-json", found=found, allowed="a StorageSpec", remedy=remedy)) from error


if __name__ == "__main__":
    sys.exit(main())
