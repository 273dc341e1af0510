"""A reward function in a process of its own: a user's code may hang, crash or print what it likes.

Where an installation says which modules it allows, that process has neither the run's credentials nor, as far as the
kernel allows it, the network or any files but Python's.

Also that process: `python -m kindling_trainer.align.rewards.function MODULE:FUNCTION SETTINGS PARENT ALLOWED`. Parent
and child exchange lines of JSON in turns over the child's standard input and output.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

from kindling_api.errors import UserError, explain
from kindling_api.functions import check_function, is_within, modules_allowed
from kindling_runtime.signals import die_with
from kindling_trainer.align.data.forms import Fields
from kindling_trainer.align.rewards.confinement import WHAT_IS_HELD, clean_environment, confine
from kindling_trainer.chat.message import Messages

START_SECONDS = 120.0
"""How long the import of a user's module may take."""

log = logging.getLogger(__name__)

Function = Callable[[list[str], list[str], list[dict[str, Any]]], Sequence[float]]
"""Prompts, answers and their records in, one finite number for each out."""


@dataclass(frozen=True)
class Answer:
    """One answer to be scored."""

    asked: Messages
    """What is answered."""
    text: str
    record: Fields
    """The prompt's record, with whatever fields it has."""
    place: str
    """Where the record stands, for people: file and line."""

    @property
    def prompt(self) -> str:
        """What was said last."""
        return self.asked[-1].content


class RewardProcess:
    """Calls one function over there. A call that goes wrong ends the other process, and the next starts it anew."""

    def __init__(
        self,
        function: str,
        *,
        field: str,
        timeout: float,
        settings: Mapping[str, Any] | None = None,
        allowed: Sequence[str] | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            function: `module:function`; the module is found where Python finds modules, and, if any may be named, in
                the current folder.
            settings: further arguments of the function, by name.
            field: the field of the specification to which an error points.
            timeout: seconds for one call, over all its answers.
            allowed: the modules in which it may be defined, and then it runs confined; None for any.

        Raises:
            SpecError: the module is not allowed.
        """
        if allowed is not None:
            check_function(field, function, allowed)
        self._function, self._field, self._timeout, self._settings = function, field, timeout, settings or {}
        self._allowed = allowed
        self._process: subprocess.Popen[str] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __call__(self, answers: Sequence[Answer]) -> list[float]:
        """One number for each answer.

        Raises:
            UserError: there is no such function; or it raised, hung, ended its process, or returned something else
                than a finite number for each answer. The message names the record.
        """
        process = self._running()
        assert process.stdin is not None
        request = {
            "prompts": [answer.prompt for answer in answers],
            "answers": [answer.text for answer in answers],
            "records": [answer.record for answer in answers],
        }
        with suppress(BrokenPipeError):  # then there is no reply either
            process.stdin.write(json.dumps(request, default=str) + "\n")
            process.stdin.flush()
        if (line := self._line(process, self._timeout)) is None:
            self.close()
            found = f"no result within {self._timeout:g} s for {_those(answers)}"
            raise self._wrong(found, "a function that returns", "mend it, or allow a longer timeout")
        reply = self._reply(process, line, _those(answers))
        if error := reply.get("error"):
            where = answers[reply["at"]].place if reply["at"] is not None else _those(answers)
            raise self._wrong(f"{error}, for {where}", "one finite number for each answer", "mend the function")
        for answer, reward in zip(answers, reply["rewards"], strict=True):
            if not math.isfinite(reward):
                found = f"{reward} for {answer.place}, answered {answer.text[:80]!r}"
                raise self._wrong(found, "a finite number", "make the function return one for any answer")
        rewards: list[float] = reply["rewards"]
        return rewards

    def close(self) -> None:
        """End the other process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = self._start()
            line = self._line(self._process, START_SECONDS)
            if line is None:
                self.close()
                remedy = "let the module do less when it is imported"
                raise self._wrong(f"no end of its import within {START_SECONDS:g} s", "a module to import", remedy)
            reply = self._reply(self._process, line, "its import")
            if error := reply.get("error"):
                self.close()
                raise self._not_there(error)
            if self._allowed is not None:
                self._tell(reply["held"])
        return self._process

    def _start(self) -> subprocess.Popen[str]:
        arguments = [self._function, json.dumps(self._settings), str(os.getpid()), json.dumps(self._allowed)]
        command = ["-m", "kindling_trainer.align.rewards.function", *arguments]
        start = partial(subprocess.Popen[str], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self._allowed is None:
            return start([sys.executable, "-P", *command])
        self._folder = tempfile.TemporaryDirectory(prefix="kindling-function-", ignore_cleanup_errors=True)
        environment = clean_environment(os.environ, self._folder.name)
        # -P and -s: no modules from the current folder, nor from the user's, which is below that
        return start([sys.executable, "-P", "-s", *command], env=environment, cwd=self._folder.name)

    def _not_there(self, error: str) -> UserError:
        if self._allowed is None:
            remedy = "correct it, or make the module importable: in the image, the current folder or PYTHONPATH"
            return self._wrong(error, "module:function that can be imported", remedy)
        remedy = "name a function that is written there, in a module that the image holds"
        return self._wrong(error, modules_allowed(self._allowed), remedy)

    def _tell(self, held: Sequence[str]) -> None:
        log.info("%s runs without the run's environment; kept from: %s", self._function, ", ".join(held) or "nothing")
        if lacking := [what for what in WHAT_IS_HELD if what not in held]:
            message = "%s: this node's kernel or container runtime cannot keep it from: %s (see docs/security.md)"
            log.warning(message, self._function, ", ".join(lacking))

    def _reply(self, process: subprocess.Popen[str], line: str, during: str) -> dict[str, Any]:
        if not line:
            code = process.wait()
            self.close()
            found = f"the end of its process, with exit code {code}, in {during}"
            raise self._wrong(found, "a function that returns", "mend it; it must not leave the interpreter")
        reply: dict[str, Any] = json.loads(line)
        return reply

    @staticmethod
    def _line(process: subprocess.Popen[str], timeout: float) -> str | None:
        """The next line; "" if the process has ended, None if nothing comes in time."""
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], timeout)[0]:
            return None
        return process.stdout.readline()

    def _wrong(self, found: str, allowed: str, remedy: str) -> UserError:
        return UserError(explain(f"{self._field}: {self._function}", found=found, allowed=allowed, remedy=remedy))


def _those(answers: Sequence[Answer]) -> str:
    if len(answers) == 1:
        return answers[0].place
    return f"{len(answers)} answers, to {answers[0].place} and others"


def main() -> None:
    """The other process: answers until nobody asks any more."""
    die_with(int(sys.argv[3]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which will end this
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the function prints is no reply
    import_path, settings, allowed = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[4])
    held = [] if allowed is None else confine(_folders_of(import_path), os.getcwd())
    if allowed is None:
        sys.path.append(os.getcwd())  # last: a json.py in the user's folder is not Python's json
    try:
        function: Function = partial(_found(import_path, allowed), **settings)
    except Exception as error:
        _send(replies, {"error": _described(error)})
        return
    _send(replies, {"held": held})
    for line in sys.stdin:
        _send(replies, _rewarded(function, **json.loads(line)))


def _folders_of(import_path: str) -> Iterator[str]:
    """Where Python, its packages and the function's own are; nothing is imported for that."""
    yield from (sys.prefix, sys.base_prefix, *(folder for folder in sys.path if os.path.isabs(folder)))
    package = import_path.partition(":")[0].partition(".")[0]
    for name in {package, *(loaded.partition(".")[0] for loaded in sys.modules)}:
        with suppress(ImportError, ValueError):
            spec = importlib.util.find_spec(name)
            if spec is not None:
                yield from spec.submodule_search_locations or ([spec.origin] if spec.origin else [])


def _found(import_path: str, allowed: Sequence[str] | None) -> Function:
    """The function itself.

    Raises:
        ValueError: it is somebody else's: an allowed module may import what it needs, and gives none of that away.
    """
    module, _, name = import_path.partition(":")
    function: Function = getattr(importlib.import_module(module), name)
    home = getattr(function, "__module__", None)
    if allowed is not None and not (isinstance(home, str) and is_within(home, allowed)):
        raise ValueError(f"{type(function).__name__} {name}, which is defined in {home or 'no module'}")
    return function


def _rewarded(
    function: Function, prompts: list[str], answers: list[str], records: list[dict[str, Any]]
) -> dict[str, Any]:
    try:
        return {"rewards": _called(function, prompts, answers, records)}
    except Exception as error:
        for at in range(len(answers)):  # which one is it?
            try:
                _called(function, prompts[at : at + 1], answers[at : at + 1], records[at : at + 1])
            except Exception as alone:
                return {"error": _described(alone), "at": at}
        return {"error": _described(error), "at": None}


def _called(function: Function, prompts: list[str], answers: list[str], records: list[dict[str, Any]]) -> list[float]:
    rewards = [float(reward) for reward in function(prompts, answers, records)]
    if len(rewards) != len(answers):
        raise ValueError(f"it returned {len(rewards)} numbers for {len(answers)} answers")
    return rewards


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _send(replies: TextIO, reply: dict[str, Any]) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
