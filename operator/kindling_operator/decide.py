"""What to do about one document: a pure function of all that is seen of it.

It is asked again after every change, and whenever it says so; asked twice about the same world, it gives the same plan,
and once a plan is carried out there is nothing left to do. It raises for nothing that a user or a cluster can cause.
"""

from __future__ import annotations

from kindling_operator.draft import Draft
from kindling_operator.policies import POLICIES
from kindling_operator.policies.sweeping import sweeping
from kindling_operator.world import Plan, World


def decide(world: World) -> Plan:
    """The plan for one document."""
    draft = Draft.of(world)
    for policy in POLICIES:
        draft = policy(draft)
        if draft.stopped:
            break
    return sweeping(draft).finish()
