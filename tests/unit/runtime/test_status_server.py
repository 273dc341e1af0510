"""What a run says of itself over HTTP."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from kindling_api.errors import UserError
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.runfile import DatasetBuildFile, Progress
from kindling_api.v1alpha1.status import CheckpointStatus, DatasetProgress, TrainingProgress
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_runtime.status_server import figures, serve_status

RUN = DatasetBuildFile(
    name="books",
    namespace="team-a",
    attempt=3,
    key="sha256:" + "0" * 64,
    output=StorageSpec(uri="s3://bucket"),
    spec=DatasetBuildSpec.model_validate({"sources": [{"uri": "builtin:python-stdlib"}]}, strict=False),
)
LABELS = '{kind="DatasetBuild",namespace="team-a",name="books",attempt="3"}'


class Told:
    """A run whose word changes while it is served."""

    def __init__(self) -> None:
        self.progress = Progress(message="first")
        self.address = ""

    def get(self, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{host}:{self.address}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()
    with serve_status(0, RUN, lambda: told.progress) as port:
        told.address = str(port)
        yield told


def test_progress_is_always_the_latest(told: Told) -> None:
    for message in ("first", "second"):
        told.progress = Progress(message=message, training=TrainingProgress(step=3, loss=float("nan")))
        status, body = told.get("/progress")
        assert status == 200
        assert json.loads(body)["message"] == message
        assert Progress.model_validate_json(body).training == TrainingProgress(step=3)


def test_whose_progress_it_is_is_said_with_it() -> None:
    run = RUN.model_copy(update={"uid": "uid-1"})
    with serve_status(0, run, lambda: Progress(message="first")) as port:
        told = Told()
        told.address = str(port)
        progress = Progress.model_validate_json(told.get("/progress")[1])
        assert (progress.uid, progress.attempt, progress.message) == ("uid-1", 3, "first")
        assert f'kindling_up{LABELS[:-1]},uid="uid-1"}} 1' in told.get("/metrics")[1]


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (Progress(), [f"kindling_up{LABELS} 1"]),
        (
            Progress(dataset=DatasetProgress(stage="reading", percent=12.5, documents=7)),
            [f"kindling_dataset_percent{LABELS} 12.5", f"kindling_dataset_documents{LABELS} 7"],
        ),
        (
            Progress(
                training=TrainingProgress(
                    step=5, loss=2.5, perplexity=12.2, tokens_per_second=900.5, goodput=0.9, eta_seconds=60
                ),
                checkpoint=CheckpointStatus(step=4, uri="s3://bucket/x", digest="sha256:0"),
            ),
            [
                "# HELP kindling_training_loss Training loss of the last step reported (nats a token).",
                "# TYPE kindling_training_loss gauge",
                f"kindling_training_loss{LABELS} 2.5",
                f"kindling_training_step{LABELS} 5",
                f"kindling_training_perplexity{LABELS} 12.2",
                f"kindling_training_tokens_per_second{LABELS} 900.5",
                f"kindling_training_goodput{LABELS} 0.9",
                f"kindling_training_eta_seconds{LABELS} 60",
                f"kindling_checkpoint_step{LABELS} 4",
            ],
        ),
    ],
    ids=["at the start", "a build", "training"],
)
def test_figures_are_told_to_prometheus(told: Told, progress: Progress, expected: list[str]) -> None:
    told.progress = progress
    status, body = told.get("/metrics")
    assert status == 200 and set(expected) <= set(body.splitlines())


def test_what_is_absent_or_not_a_number_is_no_figure() -> None:
    text = figures(RUN, Progress(training=TrainingProgress(loss=float("nan"), perplexity=float("inf"))))
    assert "loss" not in text and "perplexity" not in text and "mfu" not in text


@pytest.mark.parametrize("path", ["/", "/progress/", "/etc/passwd", "/../progress", "/progress?x=1"])
def test_nothing_else_is_there(told: Told, path: str) -> None:
    assert told.get(path)[0] == 404


def test_it_lives_on_every_address_of_the_machine_and_ends_with_the_block() -> None:
    with serve_status(0, RUN, Progress) as port:
        told = Told()
        told.address = str(port)
        assert told.get("/healthz") == (200, "ok\n")
        if socket.has_dualstack_ipv6():
            assert told.get("/healthz", "[::1]") == (200, "ok\n")
    with pytest.raises(urllib.error.URLError):
        told.get("/healthz")


def test_a_taken_port_is_named(told: Told) -> None:
    with pytest.raises(UserError, match=rf"--serve {told.address}: found address already in use"):  # noqa: SIM117
        with serve_status(int(told.address), RUN, Progress):
            pass


def test_without_a_port_nothing_is_served() -> None:
    with serve_status(None, RUN, Progress) as port:
        assert port is None
