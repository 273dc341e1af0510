"""A document that cannot be understood is refused, with the sentence that says what to change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"model": {"preset": "none-such"}}, "InvalidSpec", "none-such"),
        ({"name": 53 * "a"}, "NameTooLong", "metadata.name"),
    ],
)
def test_a_document_that_cannot_be_understood_is_refused_with_what_to_change(
    cluster: Make, spec: dict[str, Any], reason: str, words: str
) -> None:
    run = cluster(**spec)
    run.reconcile()
    assert run.said("Accepted") == ("False", reason)
    assert words in run.message("Accepted")
    assert (run.status["phase"], run.status["attempt"], [event.reason for event in run.events]) == (
        "Failed",
        0,
        [reason],
    )
