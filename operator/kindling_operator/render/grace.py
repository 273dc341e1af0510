"""How long the pods of a training run have to save and leave when they are asked to."""

from __future__ import annotations

from kindling_api import bounds
from kindling_api.v1alpha1.runfile import AlignmentRunFile, PretrainRunFile
from kindling_api.v1alpha1.sizes import checkpoint_bytes
from kindling_operator.world import Object

MOST_TOKENS = 2**18
"""What a vocabulary counts, which only the dataset knows: the largest in use (Gemma 3, technical report, section 2)."""


def save_seconds(resource: Object, run: PretrainRunFile | AlignmentRunFile) -> int:
    """By what the newest checkpoint of the run took; before there is one, by the model's size.

    The size of a model to align is not known here: until its first checkpoint it has the least.
    """
    measured = ((resource.get("status") or {}).get("checkpoint") or {}).get("seconds")
    return bounds.save_seconds(_bytes_of_a_machine(run), measured)


def _bytes_of_a_machine(run: PretrainRunFile | AlignmentRunFile) -> float:
    if isinstance(run, AlignmentRunFile):
        return 0.0
    resources = run.spec.resources
    return checkpoint_bytes(run.spec.model.shape(), MOST_TOKENS) / (resources.min_nodes or resources.nodes)
