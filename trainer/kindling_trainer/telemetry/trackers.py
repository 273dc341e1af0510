"""The clients of Weights & Biases and MLflow, behind one interface; and what must be there before one is used.

Neither package is needed where no run asks for it, and each is loaded by the process that sends (`follower`) alone.
"""

from __future__ import annotations

import netrc
import os
import socket
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from kindling_api.errors import RefusedError, SpecError, explain
from kindling_api.v1alpha1.tracking import KEY_VARIABLE, MlflowTracker, TrackingSpec, WandbTracker
from kindling_trainer.data.inputs import TrainingRun
from kindling_trainer.telemetry.metrics import Row

CONNECT_SECONDS = 5.0
KEYS = {"wandb": "WANDB_API_KEY", "mlflow": "MLFLOW_TRACKING_TOKEN"}
"""Variables in which the clients look for their keys."""
_BATCH = 1000
"""Figures in one request (MLflow, "REST API", request limits)."""
_PARAMETERS, _PARAMETER = 100, 500
"""Parameters in one request, and characters of one, likewise."""
_KEY_TAG, _NAME_TAG = "kindling.key", "kindling.run"


class TrackerClient(Protocol):
    """One run, at a tracker."""

    acknowledges: bool
    """Whether `send` returns when the rows have arrived; else they have when `close` returns."""

    def begin(self, sent: int) -> int:
        """The number of the newest row that need not be sent, of which `sent` is the one noted here."""

    def send(self, rows: Sequence[tuple[int, Row]]) -> None:
        """Send rows with their numbers, in order."""

    def close(self, *, finished: bool) -> None:
        """Send what has not arrived; `finished` says that no more will come."""


def open_tracker(run: TrainingRun, folder: Path) -> TrackerClient:
    """The tracker that the run asks for; `folder` is for files of its client."""
    tracking = run.spec.tracking
    assert tracking is not None
    return _Wandb(tracking.wandb, run, folder) if tracking.wandb is not None else _Mlflow(_mlflow_of(tracking), run)


class _Wandb:
    """The client hands rows to a process of its own, which keeps them in a file and sends them in the background. The
    server passes over rows that are numbered below what it has."""

    acknowledges = False

    def __init__(self, spec: WandbTracker, run: TrainingRun, folder: Path) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            base_url=spec.url, silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
        )
        self._run = wandb.init(
            project=spec.project, entity=spec.entity, id=run_id(run), name=run.name, resume="allow",
            config=run.spec.document(), dir=folder, settings=settings,
        )  # fmt: skip
        self._run.define_metric("*", step_metric="step")

    def begin(self, sent: int) -> int:
        return sent if self._run.offline else self._run.step - 1

    def send(self, rows: Sequence[tuple[int, Row]]) -> None:
        for number, row in rows:
            self._run.log({"step": row["step"], **figures(row)}, step=number)

    def close(self, *, finished: bool) -> None:
        self._run.finish()


class _Mlflow:
    """Each request is answered. A server passes over a figure that it has, with the same step, time and value."""

    acknowledges = True

    def __init__(self, spec: MlflowTracker, run: TrainingRun) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=spec.url)
        self._id = self._found(spec.experiment, run)

    def begin(self, sent: int) -> int:
        return sent

    def send(self, rows: Sequence[tuple[int, Row]]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(name, value, int(1000 * row["time"]), row["step"])
            for _, row in rows
            for name, value in figures(row).items()
        ]
        for first in range(0, len(metrics), _BATCH):
            self._client.log_batch(self._id, metrics[first : first + _BATCH])

    def close(self, *, finished: bool) -> None:
        if finished:
            self._client.set_terminated(self._id)

    def _found(self, experiment: str, run: TrainingRun) -> str:
        """The run's number there; it is made where there is none."""
        from mlflow.entities import Param

        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known is not None else self._client.create_experiment(experiment)
        tag = run_id(run)
        if there := self._client.search_runs([number], f"tags.`{_KEY_TAG}` = '{tag}'", max_results=1):
            return str(there[0].info.run_id)
        made = self._client.create_run(number, run_name=run.name, tags={_KEY_TAG: tag, _NAME_TAG: run.name})
        parameters = [Param(name, text[:_PARAMETER]) for name, text in flattened(run.spec.document())]
        for first in range(0, len(parameters), _PARAMETERS):
            self._client.log_batch(made.info.run_id, params=parameters[first : first + _PARAMETERS])
        return str(made.info.run_id)


def run_id(run: TrainingRun) -> str:
    """What the run is called by at a tracker, in each attempt the same."""
    return run.key.removeprefix("sha256:")[:16]


def figures(row: Row) -> dict[str, float]:
    """What of a row is a number; of windows that were left out, how many."""
    found = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("step", "time")
    }
    return found | ({"skipped_windows": float(len(row["skipped"]))} if "skipped" in row else {})


def flattened(document: Any, prefix: str = "") -> list[tuple[str, str]]:
    """The values in a document, by their paths."""
    if isinstance(document, Mapping) and document:
        return [pair for name, value in document.items() for pair in flattened(value, f"{prefix}{name}.")]
    return [(prefix.removesuffix("."), str(document))]


def check_client(tracking: TrackingSpec, where: str) -> None:
    """Make sure that the tracker's package and its key are there; no server is asked.

    Raises:
        SpecError: the package is not installed; `where` names the field.
        RefusedError: there is no key.
    """
    name, spec = tracking.chosen
    if find_spec(name) is None:
        remedy = f"install it with `pip install kindling[{name}]`, on a cluster in an image that spec.image names"
        raise SpecError(
            explain(f"{where}.{name}", found=f"no package {name} here", allowed="its own client", remedy=remedy)
        )
    if isinstance(spec, WandbTracker) and not _is_offline() and not _has_wandb_key(spec):
        remedy = f"set {KEYS[name]}, or `wandb login`, or WANDB_MODE=offline; on a cluster give keySecret"
        raise RefusedError(explain(f"{where}.{name}", found="no key", allowed=f"one for {spec.url}", remedy=remedy))


def check_server(tracking: TrackingSpec, where: str, *, wait_seconds: float = 0.0) -> None:
    """Make sure that something answers at the tracker's address, unless a proxy stands between.

    Args:
        wait_seconds: seconds to wait for it, as in a pod whose network is still being made.

    Raises:
        SpecError: nothing does.
    """
    name, spec = tracking.chosen
    url = urlsplit(spec.url)
    proxy = f"{url.scheme}_proxy"
    if (name == "wandb" and _is_offline()) or os.environ.get(proxy) or os.environ.get(proxy.upper()):
        return
    until = time.monotonic() + wait_seconds
    while True:
        try:
            port = url.port or {"http": 80, "https": 443}[url.scheme]
            socket.create_connection((url.hostname or "", port), CONNECT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() < until:
                time.sleep(1)
                continue
            remedy = "correct the address, let pods reach it (runs.egress of the chart), or leave tracking out"
            found = f"{spec.url}, where nothing answers ({error})"
            raise SpecError(explain(f"{where}.{name}.url", found=found, allowed="a server", remedy=remedy)) from error


def take_key(tracking: TrackingSpec) -> None:
    """Have the client find the key that a pod has in a file, if there is one, in the environment of this process."""
    if file := os.environ.get(KEY_VARIABLE):
        os.environ[KEYS[tracking.chosen[0]]] = Path(file).read_text().strip()


def _is_offline() -> bool:
    return os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")


def _has_wandb_key(spec: WandbTracker) -> bool:
    if os.environ.get(KEYS["wandb"]) or os.environ.get(KEY_VARIABLE):
        return True
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(urlsplit(spec.url).hostname or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _mlflow_of(tracking: TrackingSpec) -> MlflowTracker:
    assert tracking.mlflow is not None
    return tracking.mlflow
