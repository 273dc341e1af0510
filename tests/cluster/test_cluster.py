"""The cluster itself: two nodes, images, an object store, KubeRay, and faults."""

from __future__ import annotations

import time

import pytest

from kubenode.client import Cluster, Object
from kubenode.images import reference
from kubenode.store import ENDPOINT, Store

RESTRICTED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def test_two_pods_on_two_nodes_have_pytorch(cluster: Cluster, namespace: str) -> None:
    program = "import os, torch; print(torch.__version__, os.getuid(), open('/tmp/x', 'w').write('x'))"
    cluster.apply(job("torch", "trainer", program, pods=2), namespace=namespace)
    cluster.wait_for_condition("job", "torch", "Complete", namespace, 240)
    pods = cluster.find("pods", namespace, "app=torch")
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1", "node-2"}
    assert {cluster.logs(pod["metadata"]["name"], namespace).split()[1] for pod in pods} == {"65532"}


def test_the_trainer_image_compiles(cluster: Cluster, namespace: str) -> None:
    program = "import torch; print(float(torch.compile(lambda x: (x * 2).sum())(torch.ones(8))))"
    cluster.apply(job("compile", "trainer", program), namespace=namespace)
    cluster.wait_for_condition("job", "compile", "Complete", namespace, 500)
    assert cluster.logs("job/compile", namespace).strip() == "16.0"


@pytest.mark.serial
def test_a_pod_and_the_test_see_the_same_objects(cluster: Cluster, minio: Store, namespace: str) -> None:
    bucket = minio.new_bucket()
    cluster.apply(minio.secret("store"), namespace=namespace)
    program = f"""
import boto3
client = boto3.client("s3", endpoint_url="{ENDPOINT}", region_name="us-east-1")
client.put_object(Bucket="{bucket}", Key="greeting", Body=b"hello")
"""
    cluster.apply(job("put", "dataprep", program, secret="store"), namespace=namespace)
    cluster.wait_for_condition("job", "put", "Complete", namespace, 120)
    minio.stop()
    minio.start()
    assert minio.read(bucket, "greeting") == b"hello"


@pytest.mark.exhaustive
def test_kuberay_runs_a_job_on_two_nodes(cluster: Cluster, namespace: str) -> None:
    cluster.apply(ray_job(), namespace=namespace)
    cluster.wait_for_condition("job", "hello", "Complete", namespace, 480)
    assert "two nodes: 2" in cluster.logs("job/hello", namespace)


@pytest.mark.serial
def test_a_node_without_power_is_noticed_and_comes_back(cluster: Cluster, power, namespace: str) -> None:
    power.kill_node("node-2")
    start = time.monotonic()
    cluster.wait_for_condition("node", "node-2", "Ready", seconds=45, status="Unknown")
    print(f"noticed after {time.monotonic() - start:.0f} s")
    power.start_node("node-2")
    cluster.apply(job("after", "operator", "print('here')", node="node-2"), namespace=namespace)
    cluster.wait_for_condition("job", "after", "Complete", namespace, 60)


@pytest.mark.serial
def test_the_api_server_comes_back(cluster: Cluster, power, namespace: str) -> None:
    power.restart("apiserver")
    cluster.apply(job("after", "operator", "print('here')"), namespace=namespace)
    cluster.wait_for_condition("job", "after", "Complete", namespace, 180)


def test_pod_security_is_enforced(cluster: Cluster, namespace: str) -> None:
    pod = {"containers": [{"name": "pod", "image": reference("operator")}], "hostNetwork": True}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hostile"}, "spec": pod}
    refused = cluster.run_kubectl("create", "-n", namespace, "-f", "-", standard_input=str(manifest))
    assert 'violates PodSecurity "restricted' in refused.stderr


def job(name: str, image: str, program: str, pods: int = 1, secret: str = "", node: str = "") -> Object:
    """Runs a Python program in a pod, or in one on each node."""
    spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"}
    labels = {"app": name}
    pod = {
        **pod_spec(name, image, ["python", "-c", program], secret),
        "restartPolicy": "Never",
        "topologySpreadConstraints": [{**spread, "labelSelector": {"matchLabels": labels}}],
        "nodeSelector": {"kubernetes.io/hostname": node} if node else {},
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"completionMode": "Indexed", "completions": pods, "parallelism": pods, "backoffLimit": 0}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {**spec, "template": template}}


def pod_spec(name: str, image: str, command: list[str] | None = None, secret: str = "") -> Object:
    """A pod that Pod Security `restricted` lets in."""
    container = {
        "name": name,
        "image": reference(image),
        **({"command": command} if command else {}),
        "envFrom": [{"secretRef": {"name": secret}}] if secret else [],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "2Gi"}},
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes = [{"name": "tmp", "emptyDir": {}}]
    shared = {"automountServiceAccountToken": False, "securityContext": RESTRICTED_POD, "volumes": volumes}
    return {**shared, "containers": [container]}


def ray_job() -> Object:
    """A head and a worker on different nodes, and a submitter of the same image."""
    program = (
        "import ray; ray.init(); "
        "print('two nodes:', len({node['NodeManagerHostname'] for node in ray.nodes() if node['Alive']}))"
    )
    labels = {"app": "hello"}
    rule = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
    apart = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [rule]}}
    ray = {"metadata": {"labels": labels}, "spec": {**pod_spec("ray", "dataprep"), "affinity": apart}}
    submitter = {"spec": {**pod_spec("submit", "dataprep"), "restartPolicy": "Never"}}
    start = {"num-cpus": "1", "object-store-memory": str(128 << 20)}
    workers = {"groupName": "workers", "replicas": 1, "minReplicas": 1, "maxReplicas": 1}
    cluster = {
        "rayVersion": "2.60.0",
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {"dashboard-host": "0.0.0.0", **start}, "template": ray},
        "workerGroupSpecs": [{**workers, "rayStartParams": start, "template": ray}],
    }
    spec = {
        "submissionMode": "K8sJobMode",
        "entrypoint": f'python -c "{program}"',
        "shutdownAfterJobFinishes": True,
        "submitterPodTemplate": submitter,
        "rayClusterSpec": cluster,
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "hello"}, "spec": spec}
