"""Every error that Kindling raises on purpose.

    KindlingError
    ├── UserError               the input is at fault: exit code 2
    │   ├── SpecError           a document: wrong field, wrong value, wrong reference
    │   ├── DataError           the data: nothing to read, too many bad records, too small
    │   ├── StorageError        the store: no bucket, no permission, unreachable, full
    │   │   ├── NotFoundError   the store has no such object
    │   │   │   └── NoRepositoryError  nor the repository that it would be in
    │   │   ├── RefusedError    the store does not take the key, or forbids what is asked with it
    │   │   └── UnreachableError  the store does not answer, or cannot serve now: exit code 1, for it may be retried
    │   │       └── WithdrawnError  the store refuses what it granted before
    │   └── ConflictError       somebody else is working at the same place
    ├── IntegrityError          something committed does not match its digest: exit code 1
    └── WrongRunFileError       a process was given another run file than it was started for: exit code 1

A message names what was found, what is allowed and what to do. Anything else that escapes is a fault of ours (exit
code 1) and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self

EXIT_DONE = 0
EXIT_OURS = 1
EXIT_USER = 2
EXIT_NOTHING = 3
"""Of the clean-up alone: nothing is where a product is said to be."""
EXIT_SIGNALLED = 128
"""A process that ends at a signal's request returns this plus the signal's number, as a shell does."""


class KindlingError(Exception):
    """The root; `exit_code` is what a process that ends with this error returns."""

    exit_code = EXIT_OURS


class UserError(KindlingError):
    """The input is at fault, and the message says what to change."""

    exit_code = EXIT_USER

    @property
    def where(self) -> str:
        """The field, option or file that is at fault; empty where the message is about no single one.

        >>> SpecError(explain("spec.seed", found=-1, allowed="from 0", remedy="leave it out")).where
        'spec.seed'
        """
        message = self.args[0] if self.args else ""
        return message.where if isinstance(message, Explanation) else ""


class SpecError(UserError, ValueError):
    """A document is wrong."""


class DataError(UserError):
    """The data is wrong: missing, empty, too small, or with too many bad records."""


class StorageError(UserError):
    """The store refused or could not be reached."""


class NotFoundError(StorageError):
    """The store was reached and has no such object."""


class NoRepositoryError(NotFoundError):
    """There is no such repository, or revision of it: so none of its files, either."""


class RefusedError(StorageError):
    """The store does not take the key, or forbids what was asked with it."""


class UnreachableError(StorageError):
    """The store did not answer, or could not serve, for minutes: that may pass, and nobody need change anything."""

    exit_code = EXIT_OURS


class WithdrawnError(UnreachableError):
    """The store refuses, and has for minutes, what it granted to this process before: the key may have been changed."""


class ConflictError(UserError):
    """Another process has the lock of the folder that this one was to write."""


class IntegrityError(KindlingError):
    """A committed object is missing, torn, or differs from its digest."""


class WrongRunFileError(KindlingError):
    """The run file is not the one that the process was started for: nobody need change anything, another try may do."""


class Explanation(str):
    """A sentence that knows what it is about, so that nobody has to read that out of it again."""

    where: str

    @classmethod
    def of(cls, where: str, sentence: str) -> Self:
        """`where: sentence`; the sentence alone where there is nothing to name."""
        explanation = cls(f"{where}: {sentence}" if where else sentence)
        explanation.where = where
        return explanation


def explain(where: str, *, found: object, allowed: str, remedy: str) -> Explanation:
    """One sentence in the form all messages share.

    >>> explain("spec.parallelism.tensor", found=3, allowed="a divisor of model.heads = 4", remedy="use 1, 2 or 4")
    'spec.parallelism.tensor: found 3; allowed: a divisor of model.heads = 4. To fix it: use 1, 2 or 4.'
    """
    return Explanation.of(where, finding(found=found, allowed=allowed, remedy=remedy))


def finding(*, found: object, allowed: str, remedy: str) -> str:
    """The same sentence without its place, for a validator that does not know where its object stands."""
    return f"found {found}; allowed: {allowed}. To fix it: {remedy}{'' if remedy.endswith(('?', '.')) else '.'}"


def near(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be."""
    by_lower_case = {choice.lower(): choice for choice in choices}
    matches = get_close_matches(word.lower(), by_lower_case, n=1, cutoff=0.7)
    return by_lower_case[matches[0]] if matches else None
