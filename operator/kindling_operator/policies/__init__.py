"""The rules by which an operator acts, one a file, in the order in which they are asked.

Each takes what has been decided so far and adds its part; one that settles the matter is the last. So the list reads
as the specification: a document that is being deleted is nothing but cleaned up; one that has finished stays so; only
what is accepted, not suspended and has all it needs gets an attempt, whose end, progress and obstacles come last.
"""

from __future__ import annotations

from kindling_operator.draft import Policy
from kindling_operator.policies.admission import admission
from kindling_operator.policies.at_risk import at_risk
from kindling_operator.policies.creation import creation
from kindling_operator.policies.deadline import deadline
from kindling_operator.policies.deletion import deletion
from kindling_operator.policies.engine import engine
from kindling_operator.policies.finished import finished
from kindling_operator.policies.hang import hang
from kindling_operator.policies.keeping import keeping
from kindling_operator.policies.kueue import kueue
from kindling_operator.policies.obstacles import obstacles
from kindling_operator.policies.outcome import outcome
from kindling_operator.policies.partial_start import partial_start
from kindling_operator.policies.progress import progress
from kindling_operator.policies.references import references
from kindling_operator.policies.restart import restart
from kindling_operator.policies.retention import retention
from kindling_operator.policies.serving import serving
from kindling_operator.policies.suspension import suspension
from kindling_operator.policies.validity import validity

POLICIES: tuple[Policy, ...] = (
    keeping,  # its status does not say where its products are
    deletion,  # it is being deleted: clean up, and let it go
    serving,  # its model is served
    finished,  # Succeeded and Failed are final; later it is removed, if it says so
    validity,  # it is refused
    admission,  # it cannot be run in this installation
    suspension,  # the user has stopped it
    references,  # it waits for what others make
    retention,  # its data goes with it: that has to be known before there is any
    engine,  # it needs KubeRay
    deadline,  # its time is over
    restart,  # there is no attempt, or the last one has ended
    creation,  # the attempt has no Job
    kueue,  # a queue holds it back
    outcome,  # it has ended, well or badly
    progress,  # what its process says
    at_risk,  # what a queue would destroy by stopping it
    hang,  # it says nothing new for too long
    partial_start,  # it holds part of what it needs, and gets no more
    obstacles,  # its pods do not start, or all of them run
)
