"""Jobs: training on one pod a node, and data preparation in one pod."""

from __future__ import annotations

from kindling_api.v1alpha1.resources import Topology
from kindling_api.v1alpha1.runfile import PROGRESS_PORT, AlignmentRunFile, DatasetBuildFile, PretrainRunFile
from kindling_operator.labels import TOPOLOGY
from kindling_operator.render.attempt import Attempt
from kindling_operator.render.pods import Container, fixed, hub_environment, pod_template, program, spread, tolerations
from kindling_operator.render.secrets import of_run
from kindling_operator.render.templates import with_template
from kindling_operator.world import Object


def training_job(attempt: Attempt, run: PretrainRunFile | AlignmentRunFile) -> Object:
    """One pod a node. Kubernetes tells each pod its number in JOB_COMPLETION_INDEX; the first one is where all meet."""
    resources = run.spec.resources
    devices = {resources.gpu: resources.processes_per_node} if resources.gpu else {}
    first_pod = f"{attempt.name}-0.{attempt.name}"
    container = Container(
        image=attempt.image,
        resources=fixed(resources.cpu, resources.memory, devices),
        command=program(attempt, "kindling_trainer", "--nodes", str(resources.nodes), "--master", first_pod),
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
    )
    template = with_template(template, attempt.template, attempt.labels)
    return _indexed_job(attempt, _placed(template, run.spec.topology), pods=resources.nodes)


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
