"""What all objects of an attempt share: its name, its labels, its owner."""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.base import GROUP, LONGEST_NAME, Kind
from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.runfile import DatasetBuildFile, RunFile
from kindling_operator.settings import Settings
from kindling_operator.world import Object

SHORT_KINDS: dict[Kind, str] = {"DatasetBuild": "dsb", "PretrainRun": "ptr", "AlignmentRun": "alr"}
"""As in `kubectl get ptr`."""

MANAGER = {"app.kubernetes.io/managed-by": "kindling"}
"""The label of everything that the operator makes."""

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"

_LABEL_LENGTH = 63
_RAY_JOB_LENGTH = 47  # KubeRay: MaxRayJobNameLength
_ATTEMPT_DIGITS = 4


@dataclass(frozen=True)
class Attempt:
    """One attempt of one run, about to become objects."""

    settings: Settings
    resource: Object
    run: RunFile

    @property
    def name(self) -> str:
        """What everything of this attempt is called."""
        return attempt_name(self.run.kind, self.run.name, self.run.attempt)

    @property
    def labels(self) -> dict[str, str]:
        """What everything of this attempt, its pods included, is labelled with."""
        return {**run_labels(self.run.kind, self.run.name), f"{GROUP}/attempt": str(self.run.attempt)}

    @property
    def image(self) -> str:
        """What its pods run."""
        images = self.settings.images
        return self.run.spec.image or (images.dataprep if self.run.kind == "DatasetBuild" else images.trainer)

    @property
    def waits(self) -> bool:
        """Whether it is made without pods, which its queue then lets it have."""
        return self.run.spec.queue is not None

    def metadata(self) -> Object:
        """The metadata of an object of this attempt, owned by the custom resource."""
        return {
            "name": self.name,
            "namespace": self.run.namespace,
            "labels": self.labels,
            **owner_references(self.resource),
        }

    def job_metadata(self) -> Object:
        """The same for the Job or RayJob, which Kueue admits."""
        metadata = self.metadata()
        if self.run.spec.queue is not None:
            metadata["labels"] = {**self.labels, QUEUE_LABEL: self.run.spec.queue}
        return metadata


def attempt_name(kind: Kind, name: str, attempt: int) -> str:
    """`tiny-ptr-1`: a DNS label, and the same whenever it is asked for, so that nothing is made twice."""
    return f"{name}-{SHORT_KINDS[kind]}-{attempt}"


def run_labels(kind: Kind, name: str) -> dict[str, str]:
    """The labels by which all children of one document are found, of whichever attempt."""
    return {**MANAGER, f"{GROUP}/kind": kind, f"{GROUP}/name": name}


def owner_references(resource: Object) -> Object:
    """The part of metadata that lets garbage collection follow the custom resource.

    Empty for a document that is not on an API server yet, as in `kindling render`.
    """
    metadata = resource["metadata"]
    if "uid" not in metadata:
        return {}
    owner = {"apiVersion": resource["apiVersion"], "kind": resource["kind"]}
    owner |= {"name": metadata["name"], "uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True}
    return {"ownerReferences": [owner]}


def check(run: RunFile) -> None:
    """Check what only a cluster demands, for every attempt alike.

    Raises:
        SpecError: a name from which an object could not be named, or a store that pods cannot reach.
    """
    longest = longest_name(run)
    if len(run.name) > longest:
        found = f"{run.name} ({len(run.name)} characters)"
        remedy = "choose a shorter name"
        raise SpecError(explain("metadata.name", found=found, allowed=f"at most {longest} characters", remedy=remedy))
    if run.name[0].isdigit():
        allowed = "a name that begins with a letter, as the names of Services do"
        remedy = f"call it `run-{run.name}`"
        raise SpecError(explain("metadata.name", found=run.name, allowed=allowed, remedy=remedy))
    if not run.output.uri.startswith("s3://"):
        allowed = "s3://bucket/prefix, since a pod's folders end with the pod"
        remedy = "name a bucket, or leave spec.storage out to use the installation's"
        raise SpecError(explain("spec.storage.uri", found=run.output.uri, allowed=allowed, remedy=remedy))


def longest_name(run: RunFile) -> int:
    """The most characters that leave room for kind and attempt, and where there are several pods for their number."""
    suffix = len("-ptr-") + _ATTEMPT_DIGITS
    if isinstance(run, DatasetBuildFile):
        room = _RAY_JOB_LENGTH if run.spec.engine.workers else _LABEL_LENGTH
    else:
        room = _LABEL_LENGTH - len(f"-{run.spec.resources.nodes - 1}")  # the host name of a pod of an Indexed Job
    return min(room - suffix, LONGEST_NAME)
