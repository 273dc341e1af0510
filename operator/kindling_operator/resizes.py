"""Over how many nodes an elastic run goes, and what its process tells of changes of that number."""

from __future__ import annotations

from kindling_api.v1alpha1.pretrain_run import PretrainRun
from kindling_api.v1alpha1.resizes import MOST_RESIZES, NodesStatus, Resize
from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import PretrainRunStatus
from kindling_operator.draft import Draft


def min_nodes(draft: Draft) -> int | None:
    """The fewest nodes over which the run goes on; None where it needs all that it asks for."""
    document = draft.document
    return document.spec.resources.min_nodes if isinstance(document, PretrainRun) else None


def count_resizes(draft: Draft, reported: Progress) -> Draft:
    """The nodes that take part, and the changes of their number that were not known yet, each with an Event."""
    document, status = draft.document, draft.status
    if reported.nodes is None or not isinstance(document, PretrainRun) or not isinstance(status, PretrainRunStatus):
        return draft
    spec = document.spec
    nodes = NodesStatus(running=reported.nodes, wanted=spec.resources.nodes, sizes=list(spec.sizes()))
    known = {resize.time: resize for resize in status.resizes or ()}
    for resize in reported.resizes or ():
        if resize.time not in known:
            draft = draft.emit_event(
                "Normal" if resize.nodes > resize.before else "Warning", "Resized", _message(resize)
            )
        known[resize.time] = resize  # its seconds come later than itself
    resizes = [known[time] for time in sorted(known)][-MOST_RESIZES:]
    return draft.update(nodes=nodes, resizes=resizes or None)


def nodes_stopped(draft: Draft) -> Draft:
    """The attempt has ended, and with it all that took part."""
    status = draft.status
    if not isinstance(status, PretrainRunStatus) or status.nodes is None:
        return draft
    return draft.update(nodes=status.nodes.model_copy(update={"running": 0}))


def _message(resize: Resize) -> str:
    nodes = f"{resize.nodes} node{'s' * (resize.nodes != 1)}"
    lost = (
        f"{resize.lost_steps} step{'s' * (resize.lost_steps != 1)} taken again" if resize.lost_steps else "no step lost"
    )
    cause = resize.cause[:1].upper() + resize.cause[1:]
    return f"{cause}: the run goes on over {nodes} instead of {resize.before}, {lost}."
