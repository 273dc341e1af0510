"""The base of every model here, and the envelope that Kubernetes puts around a spec."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

GROUP = "kindling.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["kindling.dev/v1alpha1"] = "kindling.dev/v1alpha1"

Kind = Literal["DatasetBuild", "PretrainRun", "AlignmentRun"]

NAME_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LONGEST_NAME = 52

Name = Annotated[str, Field(pattern=NAME_PATTERN, min_length=1, max_length=LONGEST_NAME)]
"""A DNS label, short enough that names made of it can be read."""

DOCUMENT_NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"

DocumentName = Annotated[str, Field(pattern=DOCUMENT_NAME_PATTERN, min_length=1, max_length=LONGEST_NAME)]
"""A DNS label that begins with a letter, as the names of Services must that are made of it (RFC 1035)."""

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class DocumentPart(BaseModel):
    """What all parts of documents share: nothing changes after reading, and JSON spells fields in camelCase.

    Code of ours may give a field by its Python name; a document may not, as the API server would not know it.
    """

    model_config = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    def document(self) -> dict[str, Any]:
        """The JSON-ready form, as a user would write it: camelCase, nothing that is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Spec(DocumentPart):
    """Base of what users write, strict: an unknown field is an error, and a string is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, validate_default=True, allow_inf_nan=False)


class Status(DocumentPart):
    """Base of what is read back: tolerant of fields that a newer version wrote."""

    model_config = ConfigDict(extra="ignore")


class Metadata(BaseModel):
    """The part of Kubernetes' ObjectMeta that Kindling reads; the rest is kept out of its way."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: DocumentName
    namespace: str = "default"
    uid: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


def canonical_json(document: Any) -> bytes:
    """One byte string for one document: sorted keys, no spaces, UTF-8."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_of(data: bytes) -> str:
    """`sha256:` and the hexadecimal digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def key_of(document: Any) -> str:
    """The digest of a document's canonical JSON."""
    return digest_of(canonical_json(document))


def short_key(key: str) -> str:
    """The first 16 hexadecimal digits of a digest: the name of a product's folder."""
    return key.removeprefix("sha256:")[:16]
