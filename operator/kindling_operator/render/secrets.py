"""Which Secrets a pod has as files: where each is, and what tells the pod's programs.

They are files and no environment variables, since kubelet brings a changed Secret into the files of running pods. A
Secret's content is never in anything that the operator writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.v1alpha1.alignment_run import AlignmentRunSpec
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.pretrain_run import PretrainRunSpec
from kindling_api.v1alpha1.resources import RunControls
from kindling_api.v1alpha1.storage import (
    CREDENTIALS,
    CREDENTIALS_FOLDER,
    CREDENTIALS_VARIABLE,
    SOURCE_CREDENTIALS_FOLDER,
    SOURCE_CREDENTIALS_VARIABLE,
    StorageSpec,
)
from kindling_api.v1alpha1.tracking import KEY, KEY_VARIABLE
from kindling_operator.world import Object

HUB_FOLDER = "/etc/kindling-hugging-face"
HUB_TOKEN = "token"
"""The key of the Secret with a token for the Hugging Face Hub."""
HUB_VARIABLE = "HF_TOKEN_PATH"
"""Where the Hub's own library looks for the file with its token, anew for each request."""

TRACKING_FOLDER = "/etc/kindling-tracking"

_LASTING, _TOKEN = CREDENTIALS[:-1], CREDENTIALS[-1]


@dataclass(frozen=True)
class MountedSecret:
    """A Secret in the files of a pod, of its keys those alone that are named here."""

    name: str
    volume: str
    folder: str
    variable: tuple[str, str]
    """The environment variable that tells programs, and its value."""
    keys: tuple[str, ...] = _LASTING
    """Without these the pod does not start."""
    optional: tuple[str, ...] = (_TOKEN,)

    def volume_object(self) -> Object:
        """The pod's volume."""
        given: list[Object] = [{"secret": {"name": self.name, "items": _items(self.keys)}}]
        if self.optional:  # no items would be all of them
            given.append({"secret": {"name": self.name, "items": _items(self.optional), "optional": True}})
        return {"name": self.volume, "projected": {"sources": given}}

    def mount(self) -> Object:
        """Where the container has it."""
        return {"name": self.volume, "mountPath": self.folder, "readOnly": True}


def of_run(spec: RunControls, storage: StorageSpec) -> tuple[MountedSecret, ...]:
    """All that the pods have which do the work of a document."""
    sources = _of_sources(spec) if isinstance(spec, DatasetBuildSpec) else ()
    return (*of_storage(storage), *sources, *_of_hub(spec), *_of_tracker(spec))


def of_storage(storage: StorageSpec) -> tuple[MountedSecret, ...]:
    """The key of a store of products."""
    if storage.credentials_secret is None:
        return ()
    variable = (CREDENTIALS_VARIABLE, CREDENTIALS_FOLDER)
    return (MountedSecret(storage.credentials_secret, "credentials", CREDENTIALS_FOLDER, variable),)


def _of_sources(spec: DatasetBuildSpec) -> tuple[MountedSecret, ...]:
    """The keys of the servers that a build's sources lie on."""
    stores = [source.storage for source in spec.sources if source.storage is not None]
    names = sorted({store.credentials_secret for store in stores if store.credentials_secret is not None})
    variable = (SOURCE_CREDENTIALS_VARIABLE, SOURCE_CREDENTIALS_FOLDER)
    return tuple(
        MountedSecret(name, f"source-{name}", f"{SOURCE_CREDENTIALS_FOLDER}/{name}", variable) for name in names
    )


def _of_hub(spec: RunControls) -> tuple[MountedSecret, ...]:
    """The token for what is read of the Hugging Face Hub."""
    secret = spec.hugging_face.token_secret if spec.hugging_face is not None else None
    if secret is None:
        return ()
    variable = (HUB_VARIABLE, f"{HUB_FOLDER}/{HUB_TOKEN}")
    return (MountedSecret(secret, "hugging-face", HUB_FOLDER, variable, keys=(HUB_TOKEN,), optional=()),)


def _of_tracker(spec: RunControls) -> tuple[MountedSecret, ...]:
    """The key of the tracker that is shown a run's curves."""
    tracking = spec.tracking if isinstance(spec, PretrainRunSpec | AlignmentRunSpec) else None
    secret = tracking.chosen[1].key_secret if tracking is not None else None
    if secret is None:
        return ()
    variable = (KEY_VARIABLE, f"{TRACKING_FOLDER}/{KEY}")
    return (MountedSecret(secret, "tracking", TRACKING_FOLDER, variable, keys=(KEY,), optional=()),)


def _items(keys: tuple[str, ...]) -> list[Object]:
    return [{"key": key, "path": key} for key in keys]
