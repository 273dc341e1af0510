"""Where pods go by what else is there: affinity and spread, in Kubernetes' own form.

A term about pods sees those of its own namespace alone: one that saw others could keep everybody's pods off a node or a
zone, for a scheduler lets a running pod refuse those that come after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kindling_api.base import Spec
from kindling_api.errors import finding
from kindling_api.rules import cel

QUALIFIED_PATTERN = (
    r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?"
    r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
)
LABEL_VALUE_PATTERN = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
LONGEST_KEY = 253

QualifiedName = Annotated[str, Field(pattern=QUALIFIED_PATTERN, max_length=LONGEST_KEY)]
"""A label's key: a name, or a DNS name, a slash and a name."""
LabelText = Annotated[str, Field(pattern=LABEL_VALUE_PATTERN, max_length=63)]
Labels = Annotated[dict[str, LabelText], Field(max_length=32)]


def check_keys(field: str, keys: Iterable[str]) -> None:
    """Raises ValueError where a key is no qualified name."""
    for key in keys:
        if len(key) > LONGEST_KEY or not re.fullmatch(QUALIFIED_PATTERN, key):
            allowed = "a name, or a DNS name, a slash and a name"
            remedy = "write it as in example.com/team"
            raise ValueError(finding(found=f"{key!r} in {field}", allowed=allowed, remedy=remedy))


class Requirement(Spec):
    """What a label must be."""

    model_config = cel(
        (
            "self.operator in ['In', 'NotIn'] == (has(self.values) && self.values.size() > 0)",
            "values go with the operators In and NotIn, and those with values",
        )
    )

    key: QualifiedName
    """The label's key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: Annotated[tuple[LabelText, ...], Field(max_length=64)] = ()
    """With In and NotIn: the values."""

    @model_validator(mode="after")
    def _values(self) -> Self:
        if (self.operator in ("In", "NotIn")) != bool(self.values):
            found = f"operator {self.operator} with {len(self.values)} values"
            remedy = "remove values" if self.values else "add values"
            allowed = "values with In and NotIn, and none with Exists and DoesNotExist"
            raise ValueError(finding(found=found, allowed=allowed, remedy=remedy))
        return self


class LabelSelector(Spec):
    """Pods by their labels; all that is given must hold."""

    match_labels: Labels = {}
    """Labels and their values."""
    match_expressions: Annotated[tuple[Requirement, ...], Field(max_length=16)] = ()
    """Further requirements."""

    @model_validator(mode="after")
    def _keys(self) -> Self:
        check_keys("matchLabels", self.match_labels)
        return self


class NodeSelectorTerm(Spec):
    """Nodes by their labels; all that is given must hold."""

    match_expressions: Annotated[tuple[Requirement, ...], Field(min_length=1, max_length=16)]
    """What the node's labels must be."""


class NodeSelector(Spec):
    """Nodes of which one term holds."""

    node_selector_terms: Annotated[tuple[NodeSelectorTerm, ...], Field(min_length=1, max_length=16)]
    """The terms."""


Weight = Annotated[int, Field(ge=1, le=100)]


class PreferredNode(Spec):
    """Nodes that are better than others."""

    weight: Weight
    """By how much."""
    preference: NodeSelectorTerm
    """Which."""


class NodeAffinity(Spec):
    """Which nodes."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    """Only these."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredNode, ...], Field(max_length=16)
    ] = ()
    """Rather these."""


class PodAffinityTerm(Spec):
    """Pods of this namespace, and what counts as one place."""

    topology_key: QualifiedName
    """The label of nodes whose value is the place, as in `topology.kubernetes.io/zone`."""
    label_selector: LabelSelector | None = None
    """The pods; absent means those of the same attempt."""


class PreferredPods(Spec):
    """Places that are better than others."""

    weight: Weight
    """By how much."""
    pod_affinity_term: PodAffinityTerm
    """Which."""


class PodAffinity(Spec):
    """Which pods."""

    required_during_scheduling_ignored_during_execution: Annotated[
        tuple[PodAffinityTerm, ...], Field(max_length=16)
    ] = ()
    """Only so."""
    preferred_during_scheduling_ignored_during_execution: Annotated[
        tuple[PreferredPods, ...], Field(max_length=16)
    ] = ()
    """Rather so."""


class Affinity(Spec):
    """Near or far from nodes and pods."""

    node_affinity: NodeAffinity | None = None
    """Nodes, by their labels."""
    pod_affinity: PodAffinity | None = None
    """Near other pods."""
    pod_anti_affinity: PodAffinity | None = None
    """Away from other pods; absent means on nodes of their own, where there are some."""


class TopologySpreadConstraint(Spec):
    """How evenly pods are spread."""

    max_skew: Annotated[int, Field(ge=1, le=1024)]
    """By how many pods two places may differ."""
    topology_key: QualifiedName
    """The label of nodes whose value is the place."""
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    """Whether pods wait rather than be spread less evenly."""
    label_selector: LabelSelector | None = None
    """The pods that count; absent means those of the same attempt."""
