"""A cluster in memory, as `decide` sees it: one document, its Jobs and pods, and what controllers make of them."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kindling_api.base import API_VERSION
from kindling_api.documents import parse
from kindling_api.errors import SpecError
from kindling_api.references import Reference
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.children import key_of_object
from kindling_operator.decide import decide
from kindling_operator.moments import stamp
from kindling_operator.settings import Images, Settings
from kindling_operator.world import EventRecord, Object, ObjectKey, Plan, Referred, World

SETTINGS = Settings(
    images=Images(
        trainer="trainer:1", dataprep="dataprep:1", serve="serve:1", allowed_prefixes=("registry.example.com/ml/",)
    ),
    storage=StorageSpec(uri="s3://llm", endpoint="http://minio:9000", credentials_secret="minio"),
)

SPECS: dict[str, Object] = {
    "PretrainRun": {
        "dataset": {"uri": "s3://llm/datasets/0123456789abcdef"},
        "model": {"preset": "llama-124m"},
        "training": {"steps": 100},
        "resources": {"nodes": 2},
        "parallelism": {"tensor": 2},
        "restart": {"maxRestarts": 3, "hangTimeout": "5m"},
    },
    "DatasetBuild": {"sources": [{"uri": "s3://raw/*.jsonl"}]},
    "AlignmentRun": {"base": {"uri": "s3://llm/m"}, "method": {"sft": {}}, "data": [{"uri": "s3://chat.jsonl"}]},
}

MODEL = {"digest": "sha256:1", "uri": "s3://llm/models/1", "model": "s3://llm/models/1/model", "steps": 100}
RESULTS: dict[str, Object] = {
    "PretrainRun": MODEL,
    "AlignmentRun": MODEL,
    "DatasetBuild": {"digest": "sha256:1", "uri": "s3://llm/datasets/0123456789abcdef", "tokens": 5},
}

INDEX, UID = "batch.kubernetes.io/job-completion-index", "kindling.dev/uid"


class Cluster:
    """What an API server holds for one document. Writes go through `apply`, which may stop after some of them."""

    def __init__(self, kind: str = "PretrainRun", name: str = "tiny", **spec: Any) -> None:
        self.now = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
        self.settings = SETTINGS
        self._uids = itertools.count(1)
        metadata = {"name": name, "namespace": "team", "uid": "uid-0", "generation": 1, "resourceVersion": "1"}
        self.resource: Object = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata}
        self.resource["spec"] = {**SPECS[kind], **spec}
        self.objects: dict[ObjectKey, Object] = {}
        self.pods: list[Object] = []
        self.pods_beside: list[Object] = []
        self.written: StorageSpec | None = None
        self.references: dict[Reference, Referred] = {}
        self.warnings: list[Object] = []
        self.progress: Progress | None = None
        self.heard_attempt = 0
        self.progress_at: datetime | None = None
        self.unchanged_seconds = 0.0
        self.ray_installed = self.kueue_installed = True
        self.workload: Object | None = None
        self.events: list[EventRecord] = []
        self.made: list[str] = []
        """Names of Jobs and RayJobs, whenever one was made."""
        self.gone = False
        """Whether the document itself was deleted."""

    # What a reconcile does.

    def world(self) -> World:
        """What is seen."""
        resource = copy.deepcopy(self.resource)
        try:
            document, refusal = parse({**resource, "status": None}), ""
        except SpecError as error:
            document, refusal = None, str(error)
        return World(
            now=self.now,
            settings=self.settings,
            resource=resource,
            document=document,
            refusal=refusal,
            references=self.references,
            jobs=tuple(self._of_kind("Job", labelled="kindling.dev/attempt")),
            ray_jobs=tuple(self._of_kind("RayJob")),
            cleanup=next(
                (job for job in self._of_kind("Job", labelled="kindling.dev/uid") if cleans(job, self.uid)), None
            ),
            deployments=tuple(each for each in self._of_kind("Deployment") if owner_of(each) == self.uid),
            pods=tuple(copy.deepcopy([pod for pod in self.pods if pod["metadata"]["labels"][UID] == self.uid])),
            pods_beside=tuple(copy.deepcopy(self.pods_beside)),
            written=self.written,
            warnings=tuple(self.warnings),
            progress=self.progress if self.heard_attempt == self._attempt else None,
            progress_at=self.progress_at,
            unchanged_seconds=self.unchanged_seconds,
            ray_installed=self.ray_installed,
            kueue_installed=self.kueue_installed,
            workload=copy.deepcopy(self.workload),
        )

    def decide(self) -> Plan:
        """What is to be done."""
        return decide(self.world())

    def apply(self, plan: Plan, writes: int = 1000) -> None:
        """The first so many writes of a plan; the process dies after the last of them."""
        steps: list[Callable[[], None]] = []
        if plan.status != self.resource.get("status"):
            steps.append(lambda: self._write_status(plan.status))
        steps += [lambda item=item: self._apply(item) for item in plan.apply]  # type: ignore[misc]
        steps += [lambda item=item: self._put(item) for item in plan.create]  # type: ignore[misc]
        steps += [lambda patch=patch: self._patch(*patch) for patch in plan.change]  # type: ignore[misc]
        steps += [lambda key=key: self._remove(key) for key in plan.delete]  # type: ignore[misc]
        steps += [lambda event=event: self.events.append(event) for event in plan.events]  # type: ignore[misc]
        for step in steps[:writes]:
            step()

    def reconcile(self) -> Plan:
        """Decide and apply until nothing is left to do at this moment; the last plan."""
        for _ in range(6):
            plan = self.decide()
            if self.is_done(plan):
                return plan
            self.apply(plan)
        raise AssertionError(f"it does not come to rest: {plan}")

    def is_done(self, plan: Plan) -> bool:
        """Whether the plan says nothing but what is so already."""
        created = [item for item in plan.create if key_of_object(item) not in self.objects]
        deleted = [key for key in plan.delete if key in self.objects or key == key_of_object(self.resource)]
        quiet = not (created or deleted or plan.change or plan.events)
        return self.gone or (quiet and plan.status == self.resource.get("status") and plan.requeue_after != 0)

    # What others do.

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += timedelta(seconds=seconds)
        self.unchanged_seconds += seconds

    def set_clock(self, seconds: float) -> None:
        """The operator's clock is put forward, or back."""
        self.now += timedelta(seconds=seconds)

    def edit(self, **spec: Any) -> None:
        """The user changes the spec."""
        self.resource["spec"] = {**self.resource["spec"], **spec}
        self.resource["metadata"]["generation"] += 1

    def fails_to_mount(self, pod: str, message: str = 'secret "minio" not found', volume: str = "credentials") -> None:
        """What kubelet warns of where a pod waits for a volume."""
        what = f'MountVolume.SetUp failed for volume "{volume}" : {message}'
        self.warnings = [{"metadata": {}, "involvedObject": {"name": pod}, "message": what, "lastTimestamp": "1"}]

    def delete(self, key: ObjectKey) -> None:
        """An object goes, and a Job's pods with it; a document goes once it has no finalizer."""
        if key == key_of_object(self.resource):
            self.resource["metadata"].setdefault("deletionTimestamp", stamp(self.now))
            self.gone = not self.resource["metadata"].get("finalizers")
            return
        found = self.objects.pop(key, None)
        if found is not None and "uid" in found["metadata"]:
            uid = found["metadata"]["uid"]
            self.pods = [pod for pod in self.pods if pod["metadata"]["ownerReferences"][0]["uid"] != uid]

    def apply_again(self, **spec: Any) -> None:
        """The document is deleted, and another of its name is there at once; what the first had is still there, too."""
        metadata = {"name": self.resource["metadata"]["name"], "namespace": "team", "generation": 1}
        metadata |= {"uid": f"uid-{next(self._uids)}", "resourceVersion": "1"}
        spec = {**self.resource["spec"], **spec}
        self.resource = {"apiVersion": API_VERSION, "kind": self.resource["kind"], "metadata": metadata, "spec": spec}
        self.progress = self.progress_at = None
        self.gone = False

    def collect_garbage(self) -> None:
        """What other documents owned goes."""
        for key in [key for key, item in self.objects.items() if owner_of(item) not in (None, self.uid)]:
            self.delete(key)

    @property
    def uid(self) -> str:
        """Of the document."""
        return str(self.resource["metadata"]["uid"])

    @property
    def job(self) -> Object:
        """The Job or RayJob of the newest attempt."""
        return self.objects[self.job_key]

    @property
    def job_key(self) -> ObjectKey:
        found = [*self._of_kind("Job", labelled="kindling.dev/attempt"), *self._of_kind("RayJob")]
        jobs = [job for job in found if owner_of(job) == self.uid]
        return key_of_object(max(jobs, key=lambda job: int(job["metadata"]["labels"]["kindling.dev/attempt"])))

    @property
    def _attempt(self) -> int:
        attempt: int = (self.resource.get("status") or {}).get("attempt", 0)
        return attempt

    def queues(self, said: str = "") -> None:
        """Kueue takes up the newest Job, and says why that has no quota."""
        condition = {"type": "QuotaReserved", "status": "False", "message": said}
        self.workload = {
            "apiVersion": "kueue.x-k8s.io/v1beta2",
            "kind": "Workload",
            "metadata": {"name": f"job-{self.job['metadata']['name']}", "namespace": "team"},
            "status": {"conditions": [condition] if said else []},
        }

    def admit(self, *, yes: bool = True) -> None:
        """Kueue lets the newest Job have its pods, or takes them."""
        self.job["spec"]["suspend"] = not yes

    def schedule(self) -> None:
        """The Job controller makes the newest Job's pods, and they start."""
        for index in range(self.job["spec"].get("parallelism", 1)):
            self.pods.append(self._pod(index))

    def run(self) -> None:
        """From the document to running pods."""
        self.reconcile()
        self.schedule()
        self.reconcile()

    def says(self, step: int, *, saved: int | None = None, stage: str = "training", **fields: Any) -> None:
        """The attempt's process tells how far it is."""
        said: Object = {"message": stage, "training": {"stage": stage, "step": step, "steps": 100, "percent": step}}
        if saved is not None:
            said["checkpoint"] = {
                "step": saved,
                "uri": f"s3://llm/{saved}",
                "digest": "sha256:2",
                "time": stamp(self.now),
            }
        self.progress, self.progress_at = Progress.model_validate({**said, **fields}), self.now
        self.heard_attempt, self.unchanged_seconds = self._attempt, 0.0

    def pod(self, index: int = 0) -> Object:
        """A pod of the newest Job."""
        attempt = self.job["metadata"]["labels"]["kindling.dev/attempt"]
        labels = {"kindling.dev/attempt": attempt, UID: self.uid, INDEX: str(index)}
        return next(pod for pod in self.pods if labels.items() <= pod["metadata"]["labels"].items())

    def ends(self, index: int, code: int, word: Object | str = "", reason: str = "Error", later: float = 0) -> None:
        """A pod's container ends."""
        ended = {"exitCode": code, "reason": reason, "finishedAt": stamp(self.now + timedelta(seconds=later))}
        ended["message"] = word if isinstance(word, str) else json.dumps(word)
        phase = "Failed" if code else "Succeeded"
        self.pod(index)["status"] |= {"phase": phase, "containerStatuses": [{"state": {"terminated": ended}}]}

    def fails(self, index: int = 0, code: int = 1, later: float = 0, **failure: Any) -> None:
        """A pod's program ends with a last word of this failure."""
        word = {
            "state": "Failed",
            "failure": {"reason": "RankFailed", "message": "it died", "exitCode": code, **failure},
        }
        self.ends(index, code, word, later=later)

    def job_ends(self, type_: str = "Failed", message: str = "Job has reached the specified backoff limit") -> None:
        """The Job controller's verdict."""
        ended = {"type": type_, "status": "True", "message": message, "lastTransitionTime": stamp(self.now)}
        self.job["status"] = {"conditions": [ended]}

    def succeeds(self, result: Object | None = None, **said: Any) -> None:
        """All pods of the newest Job end well, with more in the result, or another last word."""
        made = RESULTS[self.resource["kind"]] | (result or {})
        word = {"state": "Succeeded", "message": "100 steps", "result": made, **said}
        for index in range(self.job["spec"].get("parallelism", 1)):
            self.ends(index, 0, word if index == 0 else "", reason="Completed")
        self.job_ends("Complete", "")

    def loses(self, index: int, reason: str = "DeletionByTaintManager", grace: float = 75) -> None:
        """Kubernetes takes a pod away."""
        pod = self.pod(index)
        pod["metadata"]["deletionTimestamp"] = stamp(self.now + timedelta(seconds=grace))
        target = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": f"because of {reason}"}
        pod["status"]["conditions"] = [target]

    # What can be asked of the status.

    @property
    def status(self) -> Object:
        status: Object = self.resource.get("status") or {}
        return status

    def said(self, type_: str) -> tuple[str, str] | None:
        """Status and reason of a condition."""
        found = [one for one in self.status.get("conditions", ()) if one["type"] == type_]
        return (found[0]["status"], found[0]["reason"]) if found else None

    def message(self, type_: str) -> str:
        """The sentence of a condition."""
        return next(str(one["message"]) for one in self.status["conditions"] if one["type"] == type_)

    def _of_kind(self, kind: str, labelled: str = "") -> list[Object]:
        found = [item for key, item in self.objects.items() if key.kind == kind]
        return [copy.deepcopy(item) for item in found if not labelled or labelled in item["metadata"]["labels"]]

    def _write_status(self, status: Object) -> None:
        text = json.dumps(status, allow_nan=False)  # what is on the wire
        self.resource["status"] = json.loads(text)

    def _apply(self, item: Object) -> None:
        self._put(item)
        self.objects[key_of_object(item)]["spec"] = copy.deepcopy(item["spec"])

    def _put(self, item: Object) -> None:
        key = key_of_object(item)
        if key in self.objects:
            assert owner_of(self.objects[key]) == owner_of(item), f"{key} is another document's"
            return
        self.objects[key] = copy.deepcopy(item)
        self.objects[key]["metadata"] |= {"uid": f"uid-{next(self._uids)}", "creationTimestamp": stamp(self.now)}
        if key.kind in ("Job", "RayJob"):
            self.made.append(key.name)

    def _remove(self, key: ObjectKey) -> None:
        there = self.objects.get(key)
        assert there is None or owner_of(there) == self.uid or cleans(there, self.uid), f"{key} is another document's"
        self.delete(key)

    def _patch(self, key: ObjectKey, patch: Object) -> None:
        if self.workload is not None and key == key_of_object(self.workload):
            self.workload["metadata"].setdefault("annotations", {}).update(patch["metadata"]["annotations"])
            return
        assert key == key_of_object(self.resource), "nothing else is patched"
        self.resource["metadata"] |= patch["metadata"]
        if "deletionTimestamp" in self.resource["metadata"] and not self.resource["metadata"]["finalizers"]:
            self.gone = True

    def _pod(self, index: int) -> Object:
        job, attempt = self.job, self.job["metadata"]["labels"]["kindling.dev/attempt"]
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{job['metadata']['name']}-{index}-{next(self._uids)}",
                "labels": {"kindling.dev/attempt": attempt, UID: self.uid, INDEX: str(index)},
                "ownerReferences": [{"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}],
                "creationTimestamp": stamp(self.now),
            },
            "spec": {"nodeName": f"node-{index + 1}"},
            "status": {
                "phase": "Running",
                "containerStatuses": [{"state": {"running": {"startedAt": stamp(self.now)}}}],
            },
        }


def owner_of(item: Object) -> str | None:
    """UID of the document that owns an object; None where it has no owner."""
    return next((str(owner["uid"]) for owner in item["metadata"].get("ownerReferences", ())), None)


def cleans(job: Object, uid: str) -> bool:
    """Whether a Job deletes the data of this document."""
    return owner_of(job) is None and job["metadata"]["labels"]["kindling.dev/uid"] == uid


@pytest.fixture
def cluster() -> Callable[..., Cluster]:
    """Makes a cluster with one document."""
    return Cluster
