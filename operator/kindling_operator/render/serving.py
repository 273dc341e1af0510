"""What serves the model of a finished AlignmentRun: a Deployment, its Service, and who may talk to it."""

from __future__ import annotations

from kindling_api.base import GROUP
from kindling_api.v1alpha1.alignment_run import AlignmentRun, ServeSpec
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_operator.render.attempt import owner_references, run_labels
from kindling_operator.render.network import egress, readers, tcp
from kindling_operator.render.pods import Container, fixed, pod_template, spread
from kindling_operator.settings import Settings
from kindling_operator.world import Object, ObjectKey

SERVE_PORT, SERVICE_PORT = 8000, 80
API_KEY = "apiKey"
"""The key of the Secret that holds what clients must send."""

GRACE_SECONDS = 30
START_SECONDS = 600
"""What reading a large model from the store may take."""


def serving(settings: Settings, resource: Object, run: AlignmentRun, model: str, storage: StorageSpec) -> list[Object]:
    """The objects that serve `model`, the URI of a folder in `storage`, as `run.spec.serve` says."""
    assert run.spec.serve is not None, "the caller has seen it"
    name, labels = serving_name(run.metadata.name), serving_labels(run.metadata.name)
    metadata = {"name": name, "namespace": run.metadata.namespace, "labels": labels, **owner_references(resource)}
    template = _pods(settings, labels, run, model, storage)
    ports = [{"name": "http", "port": SERVICE_PORT, "targetPort": "http"}]
    specs: dict[tuple[str, str], Object] = {
        ("networking.k8s.io/v1", "NetworkPolicy"): _policy(settings, labels, run.spec.serve),
        ("v1", "Service"): {"selector": labels, "ports": ports},
        ("apps/v1", "Deployment"): {
            "replicas": run.spec.serve.replicas,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": labels},
            "template": template,
        },
    }
    return [
        {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}
        for (version, kind), spec in specs.items()
    ]


def serving_keys(name: str, namespace: str) -> list[ObjectKey]:
    """The objects that may be serving the model of a run; the Deployment last, as it tells of the others."""
    kinds = (("v1", "Service"), ("networking.k8s.io/v1", "NetworkPolicy"), ("apps/v1", "Deployment"))
    return [ObjectKey(version, kind, namespace, serving_name(name)) for version, kind in kinds]


def serving_name(name: str) -> str:
    """What all of it is called."""
    return f"{name}-serve"


def serving_labels(name: str) -> dict[str, str]:
    """What its pods are found by; those of attempts do not have the last one."""
    return {**run_labels("AlignmentRun", name), f"{GROUP}/component": "serve"}


def endpoint(settings: Settings, name: str, namespace: str) -> str:
    """Where pods of the cluster find it."""
    return f"http://{serving_name(name)}.{namespace}.svc.{settings.cluster_domain}"


def _pods(settings: Settings, labels: dict[str, str], run: AlignmentRun, model: str, storage: StorageSpec) -> Object:
    serve = run.spec.serve
    assert serve is not None
    place = {"--endpoint": storage.endpoint, "--region": storage.region}
    options = [f"{option}={value}" for option, value in place.items() if value is not None]
    options += [] if serve.ui else ["--no-page"]
    container = Container(
        image=settings.images.serve,
        resources=fixed(serve.resources.cpu, serve.resources.memory),
        command=("python", "-m", "kindling_serve", model, f"--name={run.metadata.name}", *options),
        secret=storage.credentials_secret,
    )
    template = pod_template(
        settings,
        labels,
        container,
        restartPolicy="Always",
        terminationGracePeriodSeconds=GRACE_SECONDS,
        affinity=spread(labels),
    )
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
        "egress": egress(),
    }
