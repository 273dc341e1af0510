"""Where the curves of a run are shown beside those of others."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from kindling_api.base import Name, Spec
from kindling_api.rules import OneOf

KEY, KEY_VARIABLE = "key", "KINDLING_TRACKING_KEY"
"""Of a Secret, the key that counts; and what tells a pod's programs the file that it is in."""

ServerUrl = Annotated[str, Field(max_length=512, pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]


class WandbTracker(Spec):
    """Weights & Biases. The key is that of `keySecret`; without a cluster WANDB_API_KEY, or that of `wandb login`.
    WANDB_MODE=offline keeps the curves in files, for `wandb sync`."""

    project: Annotated[str, Field(max_length=128, pattern=r"^[^\s/\\#?%:][^/\\#?%:]*$")]
    """The project; it is made where there is none."""
    entity: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_.-]+$")] | None = None
    """The user or team it is of; absent means the key's own."""
    url: ServerUrl = "https://api.wandb.ai"
    """The server."""
    key_secret: Name | None = None
    """A Secret in this namespace that holds the API key as `key`."""


class MlflowTracker(Spec):
    """An MLflow tracking server. Where it asks for a token, that is the one of `keySecret`; without a cluster
    MLFLOW_TRACKING_TOKEN."""

    url: ServerUrl
    """The server."""
    experiment: Annotated[str, Field(min_length=1, max_length=256)] = "kindling"
    """The experiment; it is made where there is none."""
    key_secret: Name | None = None
    """A Secret in this namespace that holds the token as `key`."""


class TrackingSpec(OneOf):
    """Send the rows of the run's curves to a tracker, by its own client, beside the training: a tracker that does not
    answer costs no step, and gets what it missed when it is back."""

    wandb: WandbTracker | None = None
    """Weights & Biases."""
    mlflow: MlflowTracker | None = None
    """MLflow."""
