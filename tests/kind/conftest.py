"""What the tests in a kind cluster share: a clean checkout, and the cluster that `make kind` makes there.

They run by `make e2e-kind` alone: a Docker daemon, gigabytes of images and half an hour are more than `make test` has.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from document import Step, typed

from kubenode.client import Cluster
from kubenode.places import PROJECT
from kubenode.processes import run

collect_ignore_glob = [] if os.environ.get("KINDLING_E2E_KIND") else ["test_*.py"]

PAGE = "docs/quickstart-kind.md"
RESULTS = PROJECT / "dist" / "kind"
CORES_OF_THE_PAGE = 4
"""That docs/quickstart-kind.md asks for. A machine of fewer gets the same documents with less in them."""
SMALLER = (
    (r'cpu: "2"', 'cpu: "500m"'),
    (r"^    steps: 800", "    steps: 60"),
    (r"^    epochs: 12", "    steps: 60"),
    (r"^  validation: .*", r"\g<0>" + '\n  engine: {resources: {cpu: "500m"}}'),
)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is committed, as somebody else has cloned it."""
    folder = tmp_path_factory.mktemp("clean") / "kindling"
    run("git", "clone", "--quiet", PROJECT, folder)
    if (os.cpu_count() or 1) < CORES_OF_THE_PAGE:
        example = folder / "examples/01-quickstart/quickstart.yaml"
        text = example.read_text()
        for pattern, instead in SMALLER:
            text, count = re.subn(pattern, instead, text, flags=re.MULTILINE)
            assert count, f"the example has no {pattern}"
        example.write_text(text)
    return folder


@pytest.fixture(scope="session")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kubectl keeps its contexts: none of this machine's own."""
    return tmp_path_factory.mktemp("kubectl") / "config"


@pytest.fixture(scope="session")
def steps(checkout: Path, configuration: Path) -> Iterator[list[Step]]:
    """All commands of the page, typed in the checkout; then there is the cluster, until the tests have ended."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    done = []
    with (RESULTS / "steps.jsonl").open("w") as record:
        for step in typed((checkout / PAGE).read_text(), checkout, {"KUBECONFIG": str(configuration)}):
            done.append(step)
            free = round(shutil.disk_usage("/").free / 1e9, 1)
            record.write(json.dumps({**asdict(step), "free_gb": free}) + "\n")
            record.flush()
            print(f"\n    {step.seconds:.0f} s, code {step.code}, {free} GB free: {step.command}", flush=True)
    yield done
    run("kind", "delete", "cluster", "--name", "kindling", check=False)


@pytest.fixture(scope="session")
def cluster(steps: list[Step], configuration: Path) -> Cluster:
    """The page's, as its administrator sees it."""
    return Cluster(configuration)
