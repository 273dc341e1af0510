"""What documents say of one another, and the order in which that lets them run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from kindling_api.base import Kind
from kindling_api.documents import Document
from kindling_api.errors import SpecError, explain, near
from kindling_api.v1alpha1.alignment_run import AlignmentRun
from kindling_api.v1alpha1.pretrain_run import PretrainRun
from kindling_api.v1alpha1.storage import DatasetReference, ModelReference


class Reference(NamedTuple):
    """A document by its name."""

    kind: Kind
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Use:
    """One place in a document that points at a product."""

    field: str
    """Where, as in `spec.dataset`."""
    role: str
    """What the product is used as: dataset, base, initialize, reward or judge."""
    uri: str | None
    """Where the product lies, if the document says that."""
    candidates: tuple[Reference, ...]
    """The documents that may be meant, if it gives a name: two where a model's kind is left open."""


def reference_to(document: Document) -> Reference:
    """How others refer to `document`."""
    return Reference(document.kind, document.metadata.namespace, document.metadata.name)


def uses(document: Document) -> Iterator[Use]:
    """Every place in which `document` points at another document's product, in a fixed order."""
    namespace = document.metadata.namespace
    if isinstance(document, PretrainRun):
        yield _use(namespace, "spec.dataset", "dataset", document.spec.dataset)
        if document.spec.initialize is not None:
            yield _use(namespace, "spec.initialize.from", "initialize", document.spec.initialize.from_)
    if isinstance(document, AlignmentRun):
        method = document.spec.method
        yield _use(namespace, "spec.base", "base", document.spec.base)
        if method.ppo is not None and method.ppo.reward_model is not None:
            yield _use(namespace, "spec.method.ppo.rewardModel", "reward", method.ppo.reward_model)
        name, algorithm = ("ppo", method.ppo) if method.ppo else ("grpo", method.grpo)
        for index, reward in enumerate((algorithm and algorithm.rewards) or ()):
            if reward.model is not None:
                yield _use(namespace, f"spec.method.{name}.rewards[{index}].model", "reward", reward.model)
        if document.spec.evaluation.judge is not None:
            yield _use(namespace, "spec.evaluation.judge", "judge", document.spec.evaluation.judge)


def order(
    documents: Sequence[Document], *, exists: Callable[[Reference], bool] = lambda reference: False
) -> list[Document]:
    """The documents, each after those that it refers to; otherwise in the order given.

    Args:
        documents: all that are to be run, in any order.
        exists: whether a document that is not among them has a finished product all the same.

    Raises:
        SpecError: a reference leads nowhere, could mean two documents, or documents refer to one another in a circle.
    """
    by_reference = {reference_to(document): document for document in documents}
    graph: TopologicalSorter[Reference] = TopologicalSorter({reference: () for reference in by_reference})
    wrong: list[str] = []
    for reference, document in by_reference.items():
        for use in uses(document):
            targets = [candidate for candidate in use.candidates if candidate in by_reference]
            if len(targets) == 1:
                graph.add(reference, targets[0])
            elif targets:
                wrong.append(_ambiguous(reference, use))
            elif use.candidates and not any(exists(candidate) for candidate in use.candidates):
                wrong.append(_missing(reference, use, list(by_reference)))
    if wrong:
        raise SpecError("\n".join(wrong))
    try:
        return [by_reference[reference] for reference in graph.static_order()]
    except CycleError as error:
        raise SpecError(_cycle(error.args[1])) from None


def _use(namespace: str, field: str, role: str, target: DatasetReference | ModelReference) -> Use:
    if target.name is None:
        return Use(field, role, target.uri, ())
    kinds: tuple[Kind, ...] = ("DatasetBuild",)
    if isinstance(target, ModelReference):
        kinds = (target.kind,) if target.kind else ("PretrainRun", "AlignmentRun")
    return Use(field, role, None, tuple(Reference(kind, namespace, target.name) for kind in kinds))


def _missing(reference: Reference, use: Use, known: Sequence[Reference]) -> str:
    wanted, kinds = use.candidates[0], [candidate.kind for candidate in use.candidates]
    names = [other.name for other in known if other.kind in kinds and other.namespace == wanted.namespace]
    names = [name for name in names if name != reference.name or reference.kind not in kinds]
    meant = near(wanted.name, names)
    return explain(
        f"{reference}: {use.field}.name",
        found=wanted.name,
        allowed=f"the name of a {' or '.join(kinds)} that is given, too ({', '.join(names) or 'there is none'})",
        remedy=f"did you mean `{meant}`?" if meant else f"give its document, or write {use.field}: {{uri: …}}",
    )


def _ambiguous(reference: Reference, use: Use) -> str:
    return explain(
        f"{reference}: {use.field}",
        found=f"the name {use.candidates[0].name}, which two documents have",
        allowed="one document",
        remedy="add kind: PretrainRun or kind: AlignmentRun",
    )


def _cycle(references: Sequence[Reference]) -> str:
    return explain(
        str(references[0]),
        found=f"a circle of references: {' → '.join(str(reference) for reference in references[::-1])}",
        allowed="references that end at a source or a URI",
        remedy="remove one of these references",
    )
