"""What serves the model of a finished AlignmentRun: a Deployment, its Service, and who may talk to it."""

from __future__ import annotations

from collections.abc import Mapping

from kindling_api.v1alpha1.alignment_run import AlignmentRun, ServeSpec
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.labels import COMPONENT, pod_metadata, run_labels
from kindling_operator.owners import owner_references
from kindling_operator.render.attempt import child_name
from kindling_operator.render.network import egress, readers, tcp
from kindling_operator.render.pods import Container, fixed, pod_template, spread
from kindling_operator.render.secrets import of_storage
from kindling_operator.render.templates import for_helpers, template_of, with_template
from kindling_operator.settings import Settings
from kindling_operator.world import Object, ObjectKey

SERVE_PORT, SERVICE_PORT = 8000, 80
API_KEY = "apiKey"
"""The key of the Secret that holds what clients must send."""

GRACE_SECONDS = 30
START_SECONDS = 600
"""What reading a large model from the store may take."""


def serving_objects(
    settings: Settings,
    resource: Object,
    run: AlignmentRun,
    model: str,
    storage: StorageSpec,
    *,
    selector: Mapping[str, str] | None = None,
) -> list[Object]:
    """The objects that serve `model`, the URI of a folder in `storage`, as `run.spec.serve` says.

    Args:
        selector: the pods that the Service leads to, where they are not those of this Deployment alone.

    Raises:
        SpecError: its pods may not be what the document asks for by now.
    """
    assert run.spec.serve is not None, "the caller has seen it"
    name, uid = run.metadata.name, run.metadata.uid
    labels = serving_labels(name, uid)
    ports = [{"name": "http", "port": SERVICE_PORT, "targetPort": "http"}]
    deployment = {
        "replicas": run.spec.serve.replicas,
        "revisionHistoryLimit": 2,
        "selector": {"matchLabels": labels},
        "template": _pods(settings, pod_metadata(labels, resource, settings.pods), run, model, storage),
    }
    objects: list[tuple[str, str, str, Object]] = [
        ("networking.k8s.io/v1", "NetworkPolicy", serving_name(name, uid), _policy(settings, labels, run.spec.serve)),
        ("v1", "Service", service_name(name), {"selector": dict(selector or labels), "ports": ports}),
        ("apps/v1", "Deployment", serving_name(name, uid), deployment),
    ]
    metadata = {"namespace": run.metadata.namespace, "labels": labels, **owner_references(resource)}
    return [
        {"apiVersion": version, "kind": kind, "metadata": {"name": called, **metadata}, "spec": spec}
        for version, kind, called, spec in objects
    ]


def serving_keys(name: str, uid: str | None, namespace: str) -> list[ObjectKey]:
    """The objects that may be serving the model of a run; the Deployment last, as it tells of the others."""
    return [
        ObjectKey("v1", "Service", namespace, service_name(name)),
        ObjectKey("networking.k8s.io/v1", "NetworkPolicy", namespace, serving_name(name, uid)),
        ObjectKey("apps/v1", "Deployment", namespace, serving_name(name, uid)),
    ]


def serving_name(name: str, uid: str | None) -> str:
    """What the Deployment and its NetworkPolicy are called."""
    return child_name(name, "serve", uid)


def service_name(name: str) -> str:
    """What the Service is called: what clients know stays the same, and its selector says whose pods it leads to."""
    return f"{name}-serve"


def serving_labels(name: str, uid: str | None) -> dict[str, str]:
    """What its pods are found by; those of attempts do not have the last one."""
    return {**run_labels("AlignmentRun", name, uid), COMPONENT: "serve"}


def endpoint(settings: Settings, name: str, namespace: str) -> str:
    """Where pods of the cluster find it."""
    return f"http://{service_name(name)}.{namespace}.svc.{settings.cluster_domain}"


def _pods(settings: Settings, metadata: Object, run: AlignmentRun, model: str, storage: StorageSpec) -> Object:
    serve = run.spec.serve
    assert serve is not None
    place = {"--endpoint": storage.endpoint, "--region": storage.region}
    options = [f"{option}={value}" for option, value in place.items() if value is not None]
    options += [] if serve.ui else ["--no-page"]
    gpu = serve.resources.gpu
    options += [] if gpu is None else ["--device=cuda"]
    container = Container(
        image=settings.images.serve,
        resources=fixed(serve.resources.cpu, serve.resources.memory, {} if gpu is None else {gpu: 1}),
        command=("python", "-m", "kindling_serve", model, f"--name={run.metadata.name}", "--log=json", *options),
        secrets=of_storage(storage),
    )
    labels = serving_labels(run.metadata.name, run.metadata.uid)
    pod = pod_template(
        settings,
        metadata,
        container,
        restartPolicy="Always",
        terminationGracePeriodSeconds=GRACE_SECONDS,
        affinity=spread(labels),
    )
    template = with_template(pod, for_helpers(template_of(settings, run.spec)), labels)
    (program,) = template["spec"]["containers"]
    program["ports"] = [{"name": "http", "containerPort": SERVE_PORT}]
    program |= _probes()
    if serve.api_key_secret is not None:
        reference = {"name": serve.api_key_secret, "key": API_KEY}
        program["env"].append({"name": "KINDLING_API_KEY", "valueFrom": {"secretKeyRef": reference}})
    return template


def _probes() -> Object:
    """It answers from the moment on when the model is read; a busy one may take its time."""
    asked = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "startupProbe": {**asked, "periodSeconds": 2, "failureThreshold": START_SECONDS // 2},
        "readinessProbe": {**asked, "periodSeconds": 5, "timeoutSeconds": 3},
        "livenessProbe": {**asked, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def _policy(settings: Settings, labels: dict[str, str], serve: ServeSpec) -> Object:
    """With a key, anybody in the cluster may ask; without one, only pods of the same namespace, and the scraper."""
    clients: Object = {"namespaceSelector": {}} if serve.api_key_secret else {"podSelector": {}}
    return {
        "podSelector": {"matchLabels": labels},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [clients, *readers(settings)], "ports": tcp(SERVE_PORT)}],
        "egress": egress(settings, labels),
    }
