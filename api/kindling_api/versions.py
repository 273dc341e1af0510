"""The version of each step, one integer each: raise it when the step's result changes for the same input.

Versions are part of a product's key, so that work done by an older step is not taken for work done by a newer one.
"""

from __future__ import annotations

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec

STEP_VERSIONS = {
    "read": 5,
    "repair": 1,
    "rules": 3,
    "boilerplate": 1,
    "c4": 2,
    "spam": 1,
    "language": 2,
    "adult": 2,
    "exact": 1,
    "lines": 1,
    "minHash": 3,
    "toxicity": 2,
    "decontaminate": 2,
    "pii": 2,
    "tokenizer": 3,
    "shard": 1,
}
"""Steps of a dataset build. `rules` is Gopher's, FineWeb's, and how measures become decisions."""

OWN_VERSION = {"adult", "boilerplate", "c4", "language", "pii", "spam"}
"""Rule sets whose version counts only where they are used."""

PRETRAIN_VERSION = 1
"""Initial weights, data order, model and optimizer."""

ALIGNMENT_VERSION = 3
"""The version of what an alignment computes; as for pretraining."""


def step_versions(spec: DatasetBuildSpec) -> dict[str, int]:
    """The versions of the steps that `spec` applies: a new version of a step leaves builds without it alone."""
    unused = set()
    if not spec.filters:
        unused |= {"repair", "rules"}
    unused |= OWN_VERSION - {each.chosen[0] for each in spec.filters}
    if not spec.deduplicate.exact:
        unused.add("exact")
    if spec.deduplicate.lines is None:
        unused.add("lines")
    if spec.deduplicate.min_hash is None:
        unused.add("minHash")
    if spec.toxicity is None:
        unused.add("toxicity")
    if not spec.decontaminate:
        unused.add("decontaminate")
    return {step: version for step, version in STEP_VERSIONS.items() if step not in unused}
