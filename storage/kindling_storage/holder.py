"""Who has the lock of a folder: what a process says of itself, and to whom it yields."""

from __future__ import annotations

import json
import os
import secrets
import socket
from datetime import UTC, datetime
from typing import Any

from kindling_api.errors import ConflictError, explain
from kindling_api.v1alpha1.runfile import RunFile

Holder = dict[str, Any]
"""A process, as it is named to others that want the same place, and its token."""


def holder(run: RunFile | None = None) -> Holder:
    """This process, which wants a place for an attempt at `run`."""
    me: Holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "token": secrets.token_hex(8),
    }
    if run is None:
        return me
    whose: Holder = {"run": f"{run.kind}/{run.namespace}/{run.name}", "attempt": run.attempt}
    return {**me, **whose, **({"uid": run.uid} if run.uid is not None else {})}


def read_holder(found: bytes) -> Holder:
    """What a holder wrote of itself; nothing, if this is not one of ours."""
    try:
        document = json.loads(found)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def supersedes(me: Holder, other: Holder) -> bool:
    """Whether this is a newer attempt at the same run; that of an earlier document of its name is another."""
    same = "run" in me and (me["run"], me.get("uid")) == (other.get("run"), other.get("uid"))
    return same and me["attempt"] > other.get("attempt", me["attempt"])


def conflict(place: str, found: bytes) -> ConflictError:
    """The error for a place whose holder wrote `found` of itself."""
    other = read_holder(found)
    try:
        who = f"process {other['pid']} on {other['host']}, since {other['since']}"
        who += f", for attempt {other['attempt']} at {other['run']}" if "run" in other else ""
    except KeyError:
        who = "a process that has not said which it is" if found else "nobody any more"
    return ConflictError(
        explain(
            place,
            found=f"held by {who}",
            allowed="one writer at a time",
            remedy="wait until that run has ended, or stop it; what it finished is kept",
        )
    )
