"""Where things are kept, and how one document points at what another one makes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Name, Spec
from kindling_api.errors import finding
from kindling_api.hub import DATA_PATTERN, FILE_PATTERN, MODEL_PATTERN, PLAIN_PATTERN
from kindling_api.rules import OneOf, cel, exactly_one

STORE_PATTERN = r"^(s3|file)://.+"
ENDPOINT_PATTERN = r"^https?://[^\s]+$"

Uri = Annotated[str, Field(min_length=1, max_length=1024, pattern=PLAIN_PATTERN)]
ModelUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=MODEL_PATTERN)]
FileUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=FILE_PATTERN)]
DataUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=DATA_PATTERN)]

BUILT_IN = ("builtin", "builtin:python-stdlib", "builtin:python-docstrings")
"""What a URI may name beside files: what the programs bring along."""

CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""The keys of the Secret that `credentialsSecret` names; the last one is there for temporary credentials alone."""

CREDENTIALS_FOLDER = "/etc/kindling-credentials"
"""Where a pod has them, as files that change when the Secret does. Whoever is to have no key must not see it."""

CREDENTIALS_VARIABLE = "KINDLING_CREDENTIALS"
"""The environment variable that names this folder to the processes of a pod."""

SOURCE_CREDENTIALS_FOLDER = "/etc/kindling-source-credentials"
"""Where a pod has the Secrets that sources name, each in a folder of its name."""

SOURCE_CREDENTIALS_VARIABLE = "KINDLING_SOURCE_CREDENTIALS"
"""The environment variable that names this folder likewise."""


class StorageSpec(Spec):
    """A place in a store: an S3 bucket and prefix, or a folder."""

    uri: Annotated[str, Field(pattern=STORE_PATTERN, max_length=1024)]
    """Where products are kept: `s3://bucket/prefix`, or `file:///folder` without a cluster."""

    endpoint: Annotated[str, Field(pattern=ENDPOINT_PATTERN, max_length=512)] | None = None
    """The S3 server's address, for servers other than AWS, as in `http://minio:9000`."""

    region: Annotated[str, Field(max_length=64)] | None = None
    """The S3 region; most servers other than AWS do not need one."""

    credentials_secret: Name | None = None
    """The Secret in this namespace that holds AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary credentials,
    AWS_SESSION_TOKEN. Running pods take a changed one within two minutes."""


class DatasetReference(OneOf):
    """A dataset: the DatasetBuild that makes it, or where a finished one lies."""

    name: Name | None = None
    """The name of a DatasetBuild in this namespace; the run waits until it has succeeded."""

    uri: Uri | None = None
    """The folder of a finished dataset, the one that holds its manifest.json."""


class ModelReference(Spec):
    """A model: the run that makes it, or where a finished one lies."""

    model_config = cel(
        ("has(self.name) != has(self.uri)", "exactly one of name, uri must be given"),
        ("!has(self.kind) || has(self.name)", "kind goes with name, not with uri"),
    )

    kind: Literal["PretrainRun", "AlignmentRun"] | None = None
    """Which kind `name` is; needed only where a PretrainRun and an AlignmentRun share the name."""

    name: Name | None = None
    """The name of a run in this namespace; the referring run waits until it has succeeded."""

    uri: ModelUri | None = None
    """A Kindling checkpoint or model folder, a Hugging Face folder, or a model of the Hugging Face Hub:
    `hf://owner/name[@revision]`; on a cluster the revision is a commit, in full."""

    @model_validator(mode="after")
    def _name_or_uri(self) -> Self:
        given = [field for field in ("name", "uri") if getattr(self, field) is not None]
        if len(given) != 1:
            raise ValueError(exactly_one(("name", "uri"), given))
        if self.kind is not None and self.name is None:
            raise ValueError(finding(found="kind beside uri", allowed="kind only beside name", remedy="remove kind"))
        return self
