"""Docker's classic builder and BuildKit both find what the Dockerfiles copy."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from kubenode.places import PROJECT

IMAGES = ("operator", "trainer", "dataprep", "serve")
CLIENTS = [path for folder in os.get_exec_path() if (path := Path(folder, "docker")).exists()]


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("buildkit", ["0", "1"], ids=["classic", "BuildKit"])
def test_a_builder_is_sent_what_a_dockerfile_copies(image: str, buildkit: str, tmp_path: Path) -> None:
    lines = re.findall(r"^COPY .*", (PROJECT / "images" / image / "Dockerfile").read_text(), flags=re.MULTILINE)
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text("\n".join(["FROM scratch", *lines, ""]))
    failures = []
    for client in CLIENTS:
        command = [client, "build", "--quiet", "--file", dockerfile, PROJECT]
        environment = {**os.environ, "DOCKER_BUILDKIT": buildkit}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode == 0:
            subprocess.run([client, "rmi", done.stdout.strip()], capture_output=True)
            return
        failures.append(done.stderr)
    if all("buildx component is missing" in failure for failure in failures):
        pytest.skip("no client here knows BuildKit")
    pytest.fail("\n".join(failures))
