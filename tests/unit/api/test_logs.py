"""What a program logs: sentences for people, JSON lines on a cluster, and libraries only where something is amiss."""

from __future__ import annotations

import json
import logging
import warnings

import pytest

from kindling_api.logs import about, say, set_up

ours = logging.getLogger("kindling_trainer.train")


def test_a_json_line_has_the_sentence_its_figures_and_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("json")
    about(run="PretrainRun/team/tiny", attempt=2)
    say(ours, "step 3 of 9: 100 % of it", step=3, loss=2.5, perplexity=float("inf"), mfu=None)
    line = json.loads(capsys.readouterr().err)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info", "logger": "kindling_trainer.train", "message": "step 3 of 9: 100 % of it",
        "run": "PretrainRun/team/tiny", "attempt": 2, "step": 3, "loss": 2.5,
    }  # fmt: skip


def test_people_get_the_sentence_alone(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("text")
    say(ours, "step 3 of 9", step=3)
    assert capsys.readouterr().err == "step 3 of 9\n"


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    ("logger", "level", "heard"),
    [
        ("kindling_storage.s3", logging.INFO, True),
        ("__main__", logging.INFO, True),
        ("kindling_storage.s3", logging.DEBUG, False),
        ("botocore.credentials", logging.INFO, False),
        ("urllib3.connectionpool", logging.WARNING, True),
        ("kindling", logging.INFO, False),
    ],
)
def test_libraries_are_heard_where_something_is_amiss(
    form: str, logger: str, level: int, heard: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up(form)
    logging.getLogger(logger).log(level, "Found credentials in environment variables.")
    assert bool(capsys.readouterr().err) is heard


def test_tracebacks_and_warnings_are_lines_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_up("json")
    try:
        raise OSError("gone")
    except OSError as error:
        ours.error("it failed", exc_info=error)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("this is old", DeprecationWarning, stacklevel=1)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0]["traceback"].endswith("OSError: gone")
    assert "this is old" in lines[1]["message"]
