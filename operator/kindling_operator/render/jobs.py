"""Jobs: training on one pod a node, and data preparation in one pod."""

from __future__ import annotations

from collections.abc import Sequence

from kindling_api.bounds import LAST_WORD_SECONDS
from kindling_api.v1alpha1.resources import Topology
from kindling_api.v1alpha1.runfile import PROGRESS_PORT, AlignmentRunFile, DatasetBuildFile, PretrainRunFile
from kindling_operator.labels import TOPOLOGY
from kindling_operator.render.attempt import Attempt
from kindling_operator.render.grace import save_seconds
from kindling_operator.render.pods import (
    Container,
    away_from,
    fixed,
    hub_environment,
    pod_template,
    program,
    spread,
    tolerations,
)
from kindling_operator.render.secrets import of_run
from kindling_operator.render.templates import with_template
from kindling_operator.world import Object

MOST_FAILURES = 2**31 - 1
"""Of pods of an elastic run's Job: the operator alone ends an attempt. After each failure the Job waits longer before
it makes the next pod, ten minutes at most."""
MIN_PARALLELISM = "kueue.x-k8s.io/job-min-parallelism"
SAME_COMPLETIONS = "kueue.x-k8s.io/job-completions-equal-parallelism"


def training_job(attempt: Attempt, run: PretrainRunFile | AlignmentRunFile, avoided: Sequence[str] = ()) -> Object:
    """One pod a node, rather not on those to be `avoided`. Kubernetes tells each pod its number in
    JOB_COMPLETION_INDEX; the first one is where all meet."""
    resources = run.spec.resources
    devices = {resources.gpu: resources.processes_per_node} if resources.gpu else {}
    first_pod = f"{attempt.name}-0.{attempt.name}"
    saving = save_seconds(attempt.resource, run)
    place = ("--nodes", str(resources.nodes), "--master", first_pod, "--save-seconds", str(saving))
    container = Container(
        image=attempt.image,
        resources=fixed(resources.cpu, resources.memory, devices),
        command=program(attempt, "kindling_trainer", *place),
        run_file=attempt.name,
        secrets=of_run(run.spec, run.output),
        environment=hub_environment(attempt.settings),
    )
    template = pod_template(
        attempt.settings,
        attempt.pod_metadata(),
        container,
        subdomain=attempt.name,
        affinity=spread(attempt.labels),
        nodeSelector=dict(resources.node_selector),
        tolerations=tolerations(attempt.settings, resources.tolerations),
        terminationGracePeriodSeconds=saving + LAST_WORD_SECONDS,
    )
    template = away_from(with_template(template, attempt.template, attempt.labels), avoided)
    job = _indexed_job(attempt, _placed(template, run.spec.topology), pods=resources.nodes)
    if isinstance(run, PretrainRunFile) and run.spec.resources.min_nodes is not None:
        return _elastic(job, run.spec.resources.min_nodes, queued=attempt.waits)
    return job


def dataset_job(attempt: Attempt, run: DatasetBuildFile) -> Object:
    """One pod, with Ray inside."""
    amounts = run.spec.engine.resources
    container = Container(
        image=attempt.image,
        resources=fixed(amounts.cpu, amounts.memory),
        command=program(attempt, "kindling_dataprep"),
        run_file=attempt.name,
        secrets=of_run(run.spec, run.output),
        environment=hub_environment(attempt.settings),
    )
    template = pod_template(attempt.settings, attempt.pod_metadata(), container)
    return _indexed_job(attempt, with_template(template, attempt.template, attempt.labels), pods=1)


def training_service(attempt: Attempt) -> Object:
    """The headless Service that gives each pod a name, before it is ready, since ranks wait for rank 0."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": attempt.metadata(),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": attempt.labels,
            "ports": [{"name": "progress", "port": PROGRESS_PORT, "targetPort": "progress"}],
        },
    }


def _elastic(job: Object, min_nodes: int, *, queued: bool) -> Object:
    """A Job that makes lost pods anew, and has succeeded with its first pod; with fewer than it asks for, where its
    queue has no room for all (Kueue, "Run A Kubernetes Job", partial admission)."""
    spec = {**job["spec"], "backoffLimit": MOST_FAILURES, "successPolicy": {"rules": [{"succeededIndexes": "0"}]}}
    metadata = job["metadata"]
    if queued and min_nodes < spec["parallelism"]:
        annotations = {**metadata.get("annotations", {}), **{MIN_PARALLELISM: str(min_nodes), SAME_COMPLETIONS: "true"}}
        metadata = {**metadata, "annotations": annotations}
    return {**job, "metadata": metadata, "spec": spec}


def _placed(template: Object, topology: Topology | None) -> Object:
    """The pods with the one wish that Kueue takes; `spec.topology` goes before a wish in anybody's annotations."""
    if topology is None:
        return template
    wish, level = topology.chosen
    metadata = template["metadata"]
    others = {key: value for key, value in metadata.get("annotations", {}).items() if key not in TOPOLOGY.values()}
    place = level if isinstance(level, str) else "true"
    return {**template, "metadata": {**metadata, "annotations": {**others, TOPOLOGY[wish]: place}}}


def _indexed_job(attempt: Attempt, template: Object, *, pods: int) -> Object:
    """A Job that fails as a whole with its first pod; another attempt is another Job, and the operator's decision.

    There is no podFailurePolicy: with one, a Job waits for the pods of a lost node to reach a final phase, which they
    never do. Without it a pod that is being deleted counts as failed at once.
    """
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": attempt.job_metadata(),
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimit": 0,
            "suspend": attempt.waits,
            "template": template,
        },
    }
