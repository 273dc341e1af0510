"""Where products are kept: one store over folders and S3, manifests committed last, and the right to write at a place.

Light to import: boto3 is loaded when an `s3://` store is opened, and not before.
"""

from kindling_storage.opening import open_store
from kindling_storage.store import ObjectInfo, ObjectStore

__all__ = ["ObjectInfo", "ObjectStore", "open_store"]
