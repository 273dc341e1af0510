"""Whatever happens, in whatever order, and wherever the operator is killed: what must always hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kindling_operator.conditions import find
from kindling_operator.draft import STATUSES
from kindling_operator.moments import moment
from kindling_operator.pods import is_over

FAILURES = [
    {"reason": "RankFailed", "signal": "SIGKILL"},
    {"reason": "RankFailed", "exitCode": None},
    {"reason": "StorageUnreachable"},
    {"reason": "StorageUnreachable", "refused": True},
    {"reason": "UserError", "code": 2, "refused": True},
    {"reason": "InternalError"},
    {"reason": "UserError", "code": 2},
    {"reason": "SuspendedByUser", "code": 143},
]
DISRUPTIONS = ["DeletionByTaintManager", "EvictionByEvictionAPI", "PreemptionByScheduler", "TerminationByKubelet"]
WORDS = [
    "",
    "{",
    "null",
    '{"state": "Succeeded"}',
    '{"state": "Succeeded", "result": {"digest": 3}}',
    "Segmentation fault",
]


def owner_of(item: dict[str, Any]) -> str | None:
    """UID of the document that owns an object; None where it has no owner."""
    return next((owner["uid"] for owner in item["metadata"].get("ownerReferences", ())), None)


class Life(RuleBasedStateMachine):
    """One run, what befalls it, and an operator that may die after any write."""

    make: Any

    @initialize(kind=st.sampled_from(["PretrainRun", "DatasetBuild"]), queue=st.booleans(), keep=st.booleans())
    def begin(self, kind: str, queue: bool, keep: bool) -> None:
        spec: dict[str, Any] = {"queue": "team-a"} if queue else {}
        spec |= {} if keep else {"retention": "Delete"}
        self.run = self.make(kind, activeDeadline="5d", **spec)
        self.attempts = [0]
        self.final = ""
        self.earlier = 0
        """Children of documents that had the name before."""

    # The operator.

    @rule()
    def reconcile(self) -> None:
        self.run.reconcile()
        plan = self.run.decide()
        assert self.run.is_done(plan), "a second look finds nothing to do"
        assert plan.requeue_after is None or plan.requeue_after > 0, "and does not ask for another at once"

    @rule(writes=st.integers(0, 8))
    def reconcile_and_die(self, writes: int) -> None:
        self.run.apply(self.run.decide(), writes)

    # The cluster.

    @rule(seconds=st.sampled_from([1, 4, 30, 400, 4000]))
    def wait(self, seconds: float) -> None:
        self.run.wait(seconds)
        gone = [
            pod
            for pod in self.run.pods
            if (end := moment(pod["metadata"].get("deletionTimestamp"))) and end < self.run.now
        ]
        self.run.pods = [pod for pod in self.run.pods if pod not in gone]

    @precondition(lambda self: self.has_job() and self.run.job["spec"].get("suspend"))
    @rule()
    def admit(self) -> None:
        self.run.job["spec"]["suspend"] = False

    @rule()
    def get_going(self) -> None:
        """The usual course, which chance would rarely take: admitted, scheduled, running."""
        self.run.reconcile()
        if self.has_job() and "status" not in self.run.job and not self.pods():
            self.run.job["spec"]["suspend"] = False
            self.run.schedule()
        self.run.reconcile()

    @precondition(lambda self: self.live_pods())
    @rule(step=st.integers(0, 100), saved=st.none() | st.integers(0, 100), loss=st.floats())
    def say(self, step: int, saved: int | None, loss: float) -> None:
        said = {"dataset": {"stage": "read", "percent": float(step)}} if "sources" in self.run.resource["spec"] else {}
        self.run.says(step, saved=saved, **said)
        self.run.progress = self.run.progress.model_copy(
            update={"training": self.run.progress.training.model_copy(update={"loss": loss, "goodput": loss})}
        )

    @precondition(lambda self: self.live_pods())
    @rule(failure=st.sampled_from(FAILURES), data=st.data())
    def fail(self, failure: dict[str, Any], data: st.DataObject) -> None:
        self.run.fails(data.draw(st.sampled_from(self.live_pods())), **failure)

    @precondition(lambda self: self.live_pods())
    @rule(word=st.sampled_from(WORDS), code=st.sampled_from([0, 1, 134, 137]), data=st.data())
    def end_oddly(self, word: str, code: int, data: st.DataObject) -> None:
        self.run.ends(
            data.draw(st.sampled_from(self.live_pods())), code, word, reason="OOMKilled" if code == 137 else ""
        )

    @precondition(lambda self: self.live_pods())
    @rule(reason=st.sampled_from(DISRUPTIONS), data=st.data())
    def take_away(self, reason: str, data: st.DataObject) -> None:
        self.run.loses(data.draw(st.sampled_from(self.live_pods())), reason)

    @precondition(lambda self: self.has_job() and "status" not in self.run.job)
    @rule(type_=st.sampled_from(["Failed", "FailureTarget", "Complete"]))
    def end_job(self, type_: str) -> None:
        self.run.job_ends(type_)

    @precondition(lambda self: self.has_job() and len(self.live_pods()) == self.run.job["spec"].get("parallelism", 1))
    @rule()
    def succeed(self) -> None:
        self.run.succeeds()

    @precondition(lambda self: self.has_job() and (self.run.status.get("attempts") or [{}])[-1].get("uid"))
    @rule(really=st.sampled_from([False, False, False, True]))
    def delete_the_job(self, really: bool) -> None:
        if really:
            self.run.delete(self.run.job_key)

    # The user.

    @rule(suspend=st.sampled_from([False, False, False, True]))
    def suspend(self, suspend: bool) -> None:
        self.run.edit(suspend=suspend)

    @precondition(lambda self: "queue" in self.run.resource["spec"])
    @rule(queue=st.sampled_from(["team-a", "team-b"]))
    def choose_queue(self, queue: str) -> None:
        self.run.edit(queue=queue)

    @precondition(lambda self: not self.run.resource["metadata"].get("finalizers"))
    @rule(often=st.sampled_from([False, False, True]))
    def delete_and_apply_again(self, often: bool) -> None:
        """Another document has the name, while all of the first is still there."""
        if often:
            self.run.apply_again()
            self.attempts, self.final, self.earlier = [0], "", len(self.run.made)

    @rule()
    def collect_garbage(self) -> None:
        self.run.collect_garbage()

    # What must hold.

    @invariant()
    def no_attempt_has_two_children(self) -> None:
        if hasattr(self, "run"):
            assert len(self.run.made) == len(set(self.run.made)), self.run.made

    @invariant()
    def attempts_only_grow_and_every_child_was_announced(self) -> None:
        if hasattr(self, "run"):
            self.attempts.append(self.run.status.get("attempt", 0))
            assert self.attempts[-2] <= self.attempts[-1]
            numbers = [int(name.rpartition("-")[2]) for name in self.run.made[self.earlier :]]
            assert all(number <= self.attempts[-1] for number in numbers)

    @invariant()
    def nothing_is_told_of_an_earlier_document(self) -> None:
        if hasattr(self, "run"):
            uids = {job["metadata"]["uid"] for job in self.run.objects.values() if owner_of(job) != self.run.uid}
            assert not uids & {attempt.get("uid") for attempt in self.run.status.get("attempts", ())}
            step = (self.run.status.get("progress") or {}).get("step", 0)
            assert not step or self.attempts[-1], "a step before there was an attempt"

    @invariant()
    def what_is_final_stays_so(self) -> None:
        if hasattr(self, "run"):
            phase = self.run.status.get("phase")
            assert not self.final or phase == self.final
            self.final = phase if phase in ("Succeeded", "Failed") else ""

    @invariant()
    def the_status_is_one_that_the_api_server_takes(self) -> None:
        if hasattr(self, "run"):
            status = STATUSES[self.run.resource["kind"]].model_validate(self.run.status)
            assert len(status.attempts) <= 10
            assert status.restarts <= 10
            assert len({condition.type for condition in status.conditions}) == len(status.conditions)
            succeeded, failed = find(status.conditions, "Succeeded"), find(status.conditions, "Failed")
            assert succeeded is None or failed is None

    def has_job(self) -> bool:
        return any(key.kind == "Job" and owner_of(job) == self.run.uid for key, job in self.run.objects.items())

    def pods(self) -> list[Any]:
        uid = self.run.job["metadata"]["uid"] if self.has_job() else ""
        return [pod for pod in self.run.pods if pod["metadata"]["ownerReferences"][0]["uid"] == uid]

    def live_pods(self) -> list[int]:
        live = [pod for pod in self.pods() if not is_over(pod) and "deletionTimestamp" not in pod["metadata"]]
        return [int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"]) for pod in live]


@pytest.mark.parametrize(
    ("lives", "steps"), [(8, 25), pytest.param(100, 50, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]
)
def test_every_life_of_a_run_keeps_what_must_hold(cluster: Any, lives: int, steps: int) -> None:
    Life.make = cluster
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    chosen = settings(max_examples=lives, stateful_step_count=steps, deadline=None, suppress_health_check=checks)
    run_state_machine_as_test(Life, settings=chosen)
