"""Models and data of the Hugging Face Hub, as documents name them.

    hf://owner/name[@revision][/path]              a model
    hf://datasets/owner/name[@revision][/path]     data

A revision is a branch, a tag or a commit; absent means `main`. One with a slash is written with `%2F`, as in
`@refs%2Fpr%2F1`. On a cluster it is a commit, in full.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote, unquote

from kindling_api.errors import SpecError, explain

SCHEME = "hf://"
MAIN = "main"
ADDRESS = "https://huggingface.co"
"""The Hub's, unless an installation or HF_ENDPOINT names another."""

_OTHER = r"[^h]|h([^f]|$)|hf([^:]|$)|hf:([^/]|$)|hf:/([^/]|$)"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_REPOSITORY = rf"{_NAME}/{_NAME}(@[A-Za-z0-9._%-]+)?"
PLAIN_PATTERN = rf"^({_OTHER})"
"""A URI that is not of the Hub."""
MODEL_PATTERN = rf"^({_OTHER}|hf://{_REPOSITORY}$)"
"""A URI, which may be a model's on the Hub."""
FILE_PATTERN = rf"^({_OTHER}|hf://{_REPOSITORY}(/.+)?$)"
"""A URI, which may be a model's on the Hub, or a file's of it."""
DATA_PATTERN = rf"^({_OTHER}|hf://datasets/{_REPOSITORY}(/.*)?$)"
"""A URI, which may be that of data on the Hub."""
TARGET_PATTERN = rf"^hf://{_NAME}/{_NAME}(@[A-Za-z0-9._%-]+)?$"
"""A branch of a model's repository on the Hub."""

_FORM = re.compile(rf"hf://(?P<data>datasets/)?(?P<name>{_NAME}/{_NAME})(@(?P<revision>[^/]+))?(/(?P<path>.*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubUri:
    """A place on the Hub."""

    kind: Literal["model", "dataset"]
    name: str
    """`owner/name`."""
    revision: str = MAIN
    path: str = ""
    """Within the repository, without slashes at its ends."""

    def __str__(self) -> str:
        data = "datasets/" if self.kind == "dataset" else ""
        path = f"/{self.path}" if self.path else ""
        return f"{SCHEME}{data}{self.name}@{quote(self.revision, safe='')}{path}"

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, which is the same for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def asking(self) -> str:
        """The path at which the Hub tells, as `sha`, which commit the revision is."""
        return f"/api/{self.kind}s/{self.name}/revision/{quote(self.revision, safe='')}"

    @property
    def repository(self) -> str:
        """The place without a path, as a user writes it."""
        return str(replace(self, path=""))


def is_hub(uri: str) -> bool:
    """Whether a URI is one of the Hub."""
    return uri.startswith(SCHEME)


def parse_hub_uri(uri: str, where: str = "uri") -> HubUri:
    """The place that a URI names.

    Raises:
        SpecError: it has another form.
    """
    match = _FORM.fullmatch(uri)
    if match is None or (match["data"] is None and match["name"].startswith("datasets/")):
        allowed = "hf://owner/name[@revision] or hf://datasets/owner/name[@revision][/path]"
        remedy = "write both the owner and the name, as the Hub's pages show them"
        raise SpecError(explain(where, found=repr(uri), allowed=allowed, remedy=remedy))
    kind: Literal["model", "dataset"] = "dataset" if match["data"] else "model"
    return HubUri(kind, match["name"], unquote(match["revision"] or MAIN), (match["path"] or "").strip("/"))
