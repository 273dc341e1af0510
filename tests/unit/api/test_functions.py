"""A document names functions of the modules that an installation allows, and none that are only called alike."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kindling_api.errors import SpecError
from kindling_api.functions import check_function
from kindling_api.v1alpha1.alignment_method import FunctionReward

ALLOWED = ["rewards", "team.maths"]


@pytest.mark.parametrize("path", ["rewards:score", "rewards.deep.down:score", "team.maths:score", "team.maths.sums:x"])
def test_a_module_is_allowed_with_all_that_is_in_it(path: str) -> None:
    check_function("field", path, ALLOWED)


@pytest.mark.parametrize(
    "path",
    [
        "os:system",
        "rewards_of_others:score",
        "reward:score",
        "team:score",
        "team.mathsx:score",
        "os.rewards:score",
        "Rewards:score",
        "rewards.__main__:main",
        "rewards.__init__:score",
        "rewards:__getattr__",
        "rewards:__builtins__",
    ],
    ids=str,
)
def test_what_is_not_allowed_is_refused_by_name(path: str) -> None:
    with pytest.raises(
        SpecError, match=f"^field: found {path}; allowed: a function that is defined in rewards or team"
    ):
        check_function("field", path, ALLOWED)


def test_without_a_list_nothing_is_allowed_and_the_message_says_what_to_ask_for() -> None:
    with pytest.raises(SpecError) as refused:
        check_function("spec.method.grpo.rewards[0].function.importPath", "rewards:score", [])
    assert str(refused.value) == (
        "spec.method.grpo.rewards[0].function.importPath: found rewards:score; allowed: none: the installation allows "
        "no module. To fix it: use another reward, or ask for its module to be added to rewards.allowedModules of the "
        "chart."
    )


@pytest.mark.parametrize(
    "path",
    [
        "rewards",
        "rewards..os:system",
        ".rewards:score",
        "os:path.join",
        "rewards :score",
        "rewards\n:score",
        "rewards:score\n",
        "réwards:score",
        "ｏs:system",
        "a.:b",
        "a:",
    ],
    ids=ascii,
)
def test_a_path_is_two_plain_names(path: str) -> None:
    with pytest.raises(ValidationError):
        FunctionReward(import_path=path)
