"""Bounds, allowances and grace periods that several programs have to agree on; a test shows that they fit together."""

from __future__ import annotations

import math

CONDITION_MESSAGE = 4096
"""Characters of a condition's message."""
FAILURE_MESSAGE = 2048
"""Characters of a failure's message."""
INCIDENT_MESSAGE = 512
"""Characters of the message by which a status tells what a run has mended by itself."""
PROGRESS_MESSAGE = 1024
"""Characters of a progress document's message."""
EVENT_MESSAGE = 1024
"""Characters of a Kubernetes Event's message, as Kubernetes has it."""
ATTEMPT_MESSAGE = 512
"""Characters of the message by which a status remembers an attempt."""
FINAL_PROGRESS_BYTES = 4096
"""The largest final progress document: what a pod's termination message holds."""

SAVE_SECONDS = 60
"""How long training processes have at least to save and leave when asked to stop; then their launcher kills them."""
LONGEST_SAVE_SECONDS = 3600
"""How long they have at most."""
SAVE_BYTES_A_SECOND = 85_000_000
"""What a machine whose saves were never measured is taken to write to the store: one connection of Amazon S3 (its user
guide, "Performance guidelines": 85 to 90 MB/s)."""
LAST_WORD_SECONDS = 15
"""How much longer a pod has: its launcher still says what became of its processes once it has killed them."""
POD_GRACE_SECONDS = SAVE_SECONDS + LAST_WORD_SECONDS
"""How long a pod has that saves in the least time."""

START_ALLOWANCE = 3
"""A first step may take this many times as long as a later one: libraries load, the compiler works."""
START_SPREAD = 0.5
"""An attempt holds part of its pods for `restart.startTimeout`, and up to this fraction of it longer: of two attempts
that wait for each other, one is the first to give way."""
START_PAUSE_SECONDS = 30.0
"""How long it pauses then, and up to twice as long, beside what attempts pause in any case: whoever waits for what it
held finds it free meanwhile."""
HANG_MARGIN_SECONDS = 60.0
"""How much longer than the launcher the operator waits before it counts a run as hung: the launcher says more."""

LAUNCHER_SETTLE_SECONDS = 3.0
"""How long the others have, once one process has ended badly, to say what they saw: the cause may not end first."""
OPERATOR_SETTLE_SECONDS = 5.0
"""How long the pods of an attempt have, once one has failed, to say what they saw: longer than their launchers need."""
NODE_SETTLE_SECONDS = 60.0
"""How long they have where one has lost contact with another that still counts as running: its node is perhaps gone, of
which Kubernetes tells after 40 or 50 seconds (kube-controller-manager's --node-monitor-grace-period). Until then a new
pod might be sent there."""


def save_seconds(bytes_of_a_machine: float, measured: float | None) -> int:
    """How long the processes of a machine have to save and leave: the least, for the step that they are in, and twice
    what a checkpoint takes, since one may be on its way.

    Args:
        bytes_of_a_machine: its part of a checkpoint.
        measured: seconds that the newest one took, where there was one.
    """
    save = bytes_of_a_machine / SAVE_BYTES_A_SECOND if measured is None else measured
    return min(LONGEST_SAVE_SECONDS, SAVE_SECONDS + math.ceil(2 * save))


def clip(text: str, characters: int) -> str:
    """`text`, cut to at most `characters` with an ellipsis at its end where something is missing."""
    return text if len(text) <= characters else text[: characters - 1] + "…"
