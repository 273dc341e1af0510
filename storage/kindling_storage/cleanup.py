"""`python -m kindling_storage.cleanup --storage-json JSON --prefix FOLDER`: delete a product that nobody wants.

The name that leads to the product goes first, then its manifest, without which it does not exist, and then the rest.
What another document's name leads to stays, for two documents that ask for the same work share it. Doing it again is
fine.

Exit code 0: it is gone, or was not there, or is another's too. 2: it was refused. 1: the store was away, or we are at
fault; it may be tried again.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys

from pydantic import ValidationError

from kindling_api.errors import EXIT_DONE, KindlingError, SpecError, explain
from kindling_api.v1alpha1.products import MANIFEST
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_storage.hold import LOCK, hold
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
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        delete_product(_store(options.storage_json), options.prefix, options.name)
    except KindlingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return EXIT_DONE


def delete_product(store: ObjectStore, folder: str, name: str | None = None) -> None:
    """Delete the product in `folder` of `store`, for the document `name`; see above.

    Raises:
        SpecError: `folder` is not the folder of a product.
        ConflictError: a process works there.
        StorageError: the store cannot be reached, or refuses.
    """
    if not FOLDERS.fullmatch(folder):
        allowed, remedy = "datasets/<key> or models/<key>, 16 hexadecimal digits", "name the product's own folder"
        raise SpecError(explain("--prefix", found=repr(folder), allowed=allowed, remedy=remedy))
    product = store.child(folder)
    leading = {other for other, published in lookup_all(store) if published.uri == product.uri}
    for leaving in leading if name is None else leading & {name}:
        unpublish(store, leaving)
        log.info("the name %s is gone", leaving)
    if others := sorted(leading - {name}) if name is not None else []:
        log.info("%s stays: it is the product of %s, too", product.uri, " and ".join(others))
        return
    with hold(product, LOCK):
        product.delete(MANIFEST)
        product.delete_prefix("")
    product.delete(LOCK)
    log.info("%s is gone", product.uri)


def _store(text: str) -> ObjectStore:
    try:
        return open_store(StorageSpec.model_validate_json(text))
    except ValidationError as error:
        remedy = "give the document's spec.storage as JSON"
        found = error.errors(include_url=False, include_input=False)[0]["msg"]
        raise SpecError(explain("--storage-json", found=found, allowed="a StorageSpec", remedy=remedy)) from error


if __name__ == "__main__":
    sys.exit(main())
