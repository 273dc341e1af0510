"""What the operator says of itself: metrics and logs."""

from __future__ import annotations

import json
import logging

from prometheus_client import CollectorRegistry, generate_latest

from kindling_api.references import Reference
from kindling_operator import logs, metrics


def documents(number: int) -> list[tuple[Reference, metrics.Object]]:
    status = {"phase": "Running", "progress": {"step": 7, "loss": 2.5, "tokensPerSecond": 1e4, "stage": "training"}}
    running = [
        (Reference("PretrainRun", "team", f"run-{index}"), {"metadata": {"uid": f"uid-{index}"}, "status": status})
        for index in range(number)
    ]
    return [*running, (Reference("DatasetBuild", "team", "books"), {})]


def told(number: int) -> str:
    registry = CollectorRegistry()
    registry.register(metrics.Runs(lambda: documents(number)))
    return generate_latest(registry).decode()


def test_runs_are_counted_by_phase_and_those_that_run_tell_their_figures() -> None:
    text = told(2)
    assert 'kindling_runs{kind="PretrainRun",phase="Running"} 2.0' in text
    assert 'kindling_runs{kind="DatasetBuild",phase="Pending"} 1.0' in text
    assert 'kindling_run_step{kind="PretrainRun",name="run-1",namespace="team",uid="uid-1"} 7.0' in text
    run = 'kind="PretrainRun",name="run-0",namespace="team",uid="uid-0"'
    assert f"kindling_run_tokens_per_second{{{run}}} 10000.0" in text
    assert "percent{" not in text


def test_the_number_of_time_series_is_bounded() -> None:
    assert told(metrics.MOST_RUNS + 100).count("kindling_run_loss{") == metrics.MOST_RUNS


def test_a_log_line_is_json_and_says_which_run_and_attempt_it_is_about() -> None:
    run, attempt = logs.RUN.set("PretrainRun/team/tiny"), logs.ATTEMPT.set(3)
    try:
        record = logging.LogRecord("kindling", logging.WARNING, __file__, 1, "it %s", ("failed",), None)
        line = json.loads(logs.lines().format(record))
    finally:
        logs.RUN.reset(run)
        logs.ATTEMPT.reset(attempt)
    assert (line["level"], line["message"]) == ("warning", "it failed")
    assert (line["run"], line["attempt"]) == ("PretrainRun/team/tiny", 3)
