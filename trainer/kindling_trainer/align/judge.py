"""A reward function in a process of its own: a user's code may hang, crash or print what it likes.

Also that process: `python -m kindling_trainer.align.judge MODULE:FUNCTION SETTINGS PARENT`. Parent and child exchange
lines of JSON in turns over the child's standard input and output.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TextIO

from kindling_api.errors import UserError, explain
from kindling_trainer.align.formats import Fields, Messages
from kindling_trainer.stopping import die_with

START_SECONDS = 120.0
"""How long the import of a user's module may take."""

Function = Callable[[list[str], list[str], list[dict[str, Any]]], Sequence[float]]
"""Prompts, answers and their records in, one finite number for each out."""


@dataclass(frozen=True)
class Answer:
    """One answer to be judged."""

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


class Judge:
    """Calls one function over there. A call that goes wrong ends the other process, and the next starts it anew."""

    def __init__(self, function: str, *, field: str, timeout: float, settings: Mapping[str, Any] | None = None) -> None:
        """Nothing is started yet.

        Args:
            function: `module:function`; the module is found where Python finds modules, the current folder included.
            settings: further arguments of the function, by name.
            field: the field of the specification to which an error points.
            timeout: seconds for one call, over all its answers.
        """
        self._function, self._field, self._timeout, self._settings = function, field, timeout, settings or {}
        self._process: subprocess.Popen[str] | None = None

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

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            arguments = [self._function, json.dumps(self._settings), str(os.getpid())]
            command = [sys.executable, "-m", "kindling_trainer.align.judge", *arguments]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            line = self._line(self._process, START_SECONDS)
            if line is None:
                self.close()
                remedy = "let the module do less when it is imported"
                raise self._wrong(f"no end of its import within {START_SECONDS:g} s", "a module to import", remedy)
            if error := self._reply(self._process, line, "its import").get("error"):
                self.close()
                remedy = "correct it, or make the module importable: in the image, the current folder or PYTHONPATH"
                raise self._wrong(error, "module:function that can be imported", remedy)
        return self._process

    def _reply(self, process: subprocess.Popen[str], line: str, during: str) -> dict[str, Any]:
        if not line:
            code = process.wait()
            self._process = None
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
    try:
        module, _, name = sys.argv[1].partition(":")
        function: Function = partial(getattr(importlib.import_module(module), name), **json.loads(sys.argv[2]))
    except Exception as error:
        _send(replies, {"error": _described(error)})
        return
    _send(replies, {})
    for line in sys.stdin:
        _send(replies, _judged(function, **json.loads(line)))


def _judged(
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
