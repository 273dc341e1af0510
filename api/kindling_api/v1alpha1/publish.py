"""Where a finished model is put for others."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.errors import finding
from kindling_api.hub import TARGET_PATTERN, HubUri, parse_hub_uri
from kindling_api.rules import cel


class PublishSpec(Spec):
    """It goes there in one commit, by a token that may write: of `huggingFace.tokenSecret`; without a cluster HF_TOKEN,
    or that of `hf auth login`. Whether the Hub will take it is tried before the training begins."""

    model_config = cel(("!self.to.matches('@[0-9a-f]{40}$')", "to names a branch, for a commit never changes"))

    to: Annotated[str, Field(max_length=256, pattern=TARGET_PATTERN)]
    """The repository, `hf://owner/name` or `hf://owner/name@branch`. It is made where there is none; other files in it
    stay."""
    private: bool = True
    """Whether a repository that is made is seen by its owner alone."""

    @model_validator(mode="after")
    def _names_a_branch(self) -> Self:
        if self.place.is_pinned:
            raise ValueError(finding(found=self.to, allowed="a branch", remedy="leave out the commit behind the @"))
        return self

    @property
    def place(self) -> HubUri:
        """The branch that the model is put on."""
        return parse_hub_uri(self.to, "publish.to")
