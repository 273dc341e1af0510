"""A run's program as its pod starts it: with the command, environment and files that the operator gives it, and nothing
else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from kindling_api.documents import parse
from kindling_api.resolve import Waiting, resolve
from kindling_api.v1alpha1.runfile import Progress
from kindling_operator.render import render
from kindling_operator.settings import HuggingFace, Images, Settings

PASSED = ("PATH", "PYTHONPATH", "HF_HUB_DISABLE_XET")
"""Environment variables of the test that its program has, too."""
SECRETS = {"store": {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}, "hub": {"token": "hf_secret"}}


def applied(kind: str, name: str, bucket: Any, prefix: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A document as the API server has it, whose products go under a prefix of a test's bucket."""
    storage = {"uri": f"{bucket.uri}/{prefix}", "endpoint": bucket.endpoint, "credentialsSecret": "store"}
    metadata = {"name": name, "namespace": "team", "uid": "1"}
    spec = {"storage": storage, **spec}
    return {"apiVersion": "kindling.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


def run_pod(resource: dict[str, Any], hub: str, folder: Path, attempt: int = 1) -> tuple[int, Progress]:
    """Exit code and last word of the pod's program; its file system is in `folder`."""
    storage = parse(resource).spec.storage
    assert storage is not None
    images = Images(trainer="t", dataprep="d", serve="s")
    settings = Settings(images=images, storage=storage, hugging_face=HuggingFace(endpoint=hub))
    run_file = resolve(parse(resource), storage=storage, finished={}, attempt=attempt)
    assert not isinstance(run_file, Waiting)
    run_map, job = render(settings, resource, run_file).create
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    places = {mount["name"]: folder / mount["mountPath"].lstrip("/") for mount in container["volumeMounts"]}
    for volume in pod["volumes"]:
        places[volume["name"]].mkdir(parents=True)
        for source in volume.get("projected", {}).get("sources", ()):
            secret = SECRETS[source["secret"]["name"]]
            for item in source["secret"]["items"]:
                if item["key"] in secret:
                    (places[volume["name"]] / item["path"]).write_text(secret[item["key"]])
    (places["run"] / "run.json").write_text(run_map["data"]["run.json"])
    (folder / "dev").mkdir(exist_ok=True)
    environment = {each["name"]: _inside(folder, each["value"]) for each in container["env"]}
    environment |= {name: os.environ[name] for name in PASSED if name in os.environ}
    environment["JOB_COMPLETION_INDEX"] = "0"
    command = [_inside(folder, word).replace("8090", str(_free_port())) for word in container["command"]]
    done = subprocess.run([sys.executable, *command[1:]], env=environment, cwd="/", capture_output=True, timeout=300)
    return done.returncode, Progress.model_validate_json((folder / "dev" / "termination-log").read_bytes())


def _inside(folder: Path, text: str) -> str:
    return str(folder / text.lstrip("/")) if text.startswith(("/etc", "/tmp", "/dev")) else text


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
