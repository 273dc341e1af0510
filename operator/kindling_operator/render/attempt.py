"""What all objects of an attempt share: its name, its labels, its owner."""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.base import Kind
from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.runfile import DatasetBuildFile, RunFile
from kindling_operator.labels import ATTEMPT, PRIORITY, QUEUE, pod_metadata, run_labels
from kindling_operator.owners import owner_references
from kindling_operator.settings import Settings
from kindling_operator.world import Object

SHORT_KINDS: dict[Kind, str] = {"DatasetBuild": "dsb", "PretrainRun": "ptr", "AlignmentRun": "alr"}
"""The short names of the kinds, as in `kubectl get ptr`."""

_LABEL_LENGTH = 63
_RAY_JOB_LENGTH = 47  # KubeRay: MaxRayJobNameLength
_UID_LENGTH = 8


@dataclass(frozen=True)
class Attempt:
    """One attempt of one run, about to become objects."""

    settings: Settings
    resource: Object
    run: RunFile

    @property
    def name(self) -> str:
        """What everything of this attempt is called: `tiny-ptr-6f6b0b2e-1`, whenever it is asked for, so that nothing
        is made twice, and for no other document of that name, so that nothing is taken for another's."""
        parts = (SHORT_KINDS[self.run.kind], self.run.uid, str(self.run.attempt))
        return child_name(self.run.name, *parts, longest=_longest(self.run))

    @property
    def labels(self) -> dict[str, str]:
        """What everything of this attempt, its pods included, is labelled with."""
        labels = run_labels(self.run.kind, self.run.name, self.run.uid)
        return {**labels, ATTEMPT: str(self.run.attempt)}

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
        """The metadata of the Job or RayJob, which Kueue admits."""
        metadata = {**self.metadata(), **self.pod_metadata()}
        if self.run.spec.queue is not None:
            metadata["labels"][QUEUE] = self.run.spec.queue
            if self.run.spec.priority is not None:
                metadata["labels"][PRIORITY] = self.run.spec.priority
        return metadata

    def pod_priority(self) -> Object:
        """The field of its pods' specs that says how they stand to others, where the installation lets a run choose;
        a queue is told by a label of the Job."""
        priority, allowed = self.run.spec.priority, self.settings.pods.priority_classes
        return {"priorityClassName": priority} if priority in allowed and self.run.spec.queue is None else {}

    def pod_metadata(self) -> Object:
        """The metadata of its pods: their labels, and what of the document's own the installation lets through."""
        return pod_metadata(self.labels, self.resource, self.settings.pods)


def child_name(name: str, what: str, uid: str | None, *more: str, longest: int = _LABEL_LENGTH) -> str:
    """A DNS label for what belongs to the document `name`; of its UID it has the first digits, where it has one.

    A name that is too long for that is cut, for the UID tells documents apart.
    """
    parts = [what, *([uid[:_UID_LENGTH]] if uid else []), *more]
    end = "".join(f"-{part}" for part in parts)
    return name[: longest - len(end)].rstrip("-") + end


def check(run: RunFile) -> None:
    """Check what only a cluster demands, for every attempt alike.

    Raises:
        SpecError: a store that pods cannot reach.
    """
    if not run.output.uri.startswith("s3://"):
        allowed = "s3://bucket/prefix, since a pod's folders end with the pod"
        remedy = "name a bucket, or leave spec.storage out to use the installation's"
        raise SpecError(explain("spec.storage.uri", found=run.output.uri, allowed=allowed, remedy=remedy))


def _longest(run: RunFile) -> int:
    """The most characters of a Job's name that leave room for what its controller adds to it."""
    if isinstance(run, DatasetBuildFile):
        return _RAY_JOB_LENGTH if run.spec.engine.workers else _LABEL_LENGTH - len("-0")
    return _LABEL_LENGTH - len(f"-{run.spec.resources.nodes - 1}")  # the host name of a pod of an Indexed Job
