"""What a client is told when something is wrong, in OpenAI's form and with field, found, allowed and remedy."""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import ErrorDetails

from kindling_api.errors import UserError, explain

_FIELD = re.compile(r"(?!(str|int|float|bool|list|constrained)\b)[a-z_]+")


class ApiError(Exception):
    """What a client is told, in OpenAI's form."""

    def __init__(self, status: int, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> dict[str, Any]:
        """The document that tells it."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refused(error: UserError, within: tuple[str, ...] = ()) -> ApiError:
    """A message of the form that all have, which begins with the field it is about."""
    where = ".".join(filter(None, (*within, error.where)))
    return ApiError(400, ".".join((*within, str(error))), param=where or None)


def unlike(faults: list[ErrorDetails]) -> ApiError:
    """What makes a body no such request; the deepest fault is told, for a union's other branches say less."""
    first = faults[0]
    if first["type"] == "json_invalid":
        remedy = "send one JSON object, in UTF-8"
        return ApiError(400, explain("The body", found=first["msg"], allowed="JSON", remedy=remedy))
    where = max((_path(fault) for fault in faults if _path(fault)[:1] == _path(first)[:1]), key=len)
    same = [fault for fault in faults if _path(fault) == where]
    rule = same[0].get("ctx", {}).get("error")
    if isinstance(rule, UserError):
        return refused(rule, where)
    name = ".".join(where)
    if same[0]["type"] == "missing":
        found, allowed, remedy = "no such field", "a request that has it", "add it"
    else:
        wanted = (fault["msg"].removeprefix("Input should be ") for fault in same)
        found, allowed = shown(same[0]["input"]), ", or ".join(dict.fromkeys(wanted))
        remedy = "correct it, or leave it out for its default"
    return ApiError(400, explain(name or "The body", found=found, allowed=allowed, remedy=remedy), param=name or None)


def shown(value: object, most: int = 60) -> str:
    """A value of a request, as much of it as a message should have."""
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}…"


def _path(fault: ErrorDetails) -> tuple[str, ...]:
    """Where it is in the request, without the names that pydantic has for a union's branches."""
    return tuple(str(part) for part in fault["loc"] if isinstance(part, int) or _FIELD.fullmatch(part))
