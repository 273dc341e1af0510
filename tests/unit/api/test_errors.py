import doctest
import pickle

import pytest

from kindling_api import errors
from kindling_api.errors import (
    ConflictError,
    DataError,
    IntegrityError,
    KindlingError,
    SpecError,
    StorageError,
    explain,
    near,
)


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(errors).failed == 0


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(SpecError, 2), (DataError, 2), (StorageError, 2), (ConflictError, 2), (IntegrityError, 1), (KindlingError, 1)],
)
def test_the_exit_code_says_whose_fault_it_was(error: type[KindlingError], exit_code: int) -> None:
    assert error("").exit_code == exit_code


@pytest.mark.parametrize(
    ("word", "meant"),
    [("lerningRate", "learningRate"), ("LEARNINGRATE", "learningRate"), ("weight_decay", "weightDecay"), ("x", None)],
)
def test_the_nearest_word_is_found_and_a_far_one_is_not(word: str, meant: str | None) -> None:
    assert near(word, ["learningRate", "weightDecay", "betas"]) == meant


def test_an_error_knows_which_field_it_is_about_in_another_process_too() -> None:
    error = SpecError(explain("spec.seed", found=-1, allowed="from 0", remedy="leave it out"))
    in_another_process = pickle.loads(pickle.dumps(error))
    assert (error.where, in_another_process.where) == ("spec.seed", "spec.seed")
    assert (SpecError("no sentence").where, SpecError().where) == ("", "")
