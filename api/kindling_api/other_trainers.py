"""Where the fields that other trainers have are here: what a user is told who writes one of them out of habit."""

from __future__ import annotations

import re
from collections.abc import Callable

from kindling_api.yaml_source import FieldPath

_ADAMW, _SCHEDULE = "spec.training.optimizer.adamW", "spec.training.schedule.cosine"

_PLACES = {
    "learningrate": f"{_ADAMW}.learningRate",
    "lr": f"{_ADAMW}.learningRate",
    "weightdecay": f"{_ADAMW}.weightDecay",
    "beta1": f"{_ADAMW}.betas",
    "adambeta1": f"{_ADAMW}.betas",
    "betas": f"{_ADAMW}.betas",
    "adamepsilon": f"{_ADAMW}.epsilon",
    "warmup": f"{_SCHEDULE}.warmupFraction",
    "warmupratio": f"{_SCHEDULE}.warmupFraction",
    "warmupsteps": f"{_SCHEDULE}.warmupFraction",
    "minlr": f"{_SCHEDULE}.finalFraction",
    "lrschedulertype": "spec.training.schedule",
    "batchsize": "spec.training.batch.tokens",
    "globalbatchsize": "spec.training.batch.tokens",
    "microbatchsize": "spec.training.batch.microBatch",
    "perdevicetrainbatchsize": "spec.training.batch.microBatch",
    "maxsteps": "spec.training.steps",
    "trainiters": "spec.training.steps",
    "numepochs": "spec.training.epochs",
    "numtrainepochs": "spec.training.epochs",
    "maxgradnorm": "spec.training.gradientClip",
    "gradclip": "spec.training.gradientClip",
    "gradientcheckpointing": "spec.training.activationCheckpointing",
    "bf16": "spec.training.precision",
    "fp16": "spec.training.precision",
    "dtype": "spec.training.precision",
    "seed": "spec.training.seed",
    "savesteps": "spec.checkpoint.every",
    "evalsteps": "spec.evaluation.every",
    "seqlen": "spec.model.context",
    "seqlength": "spec.model.context",
    "maxseqlength": "spec.model.context",
    "blocksize": "spec.model.context",
    "nlayer": "spec.model.layers",
    "numlayers": "spec.model.layers",
    "numhiddenlayers": "spec.model.layers",
    "nhead": "spec.model.heads",
    "numattentionheads": "spec.model.heads",
    "nembd": "spec.model.width",
    "hiddensize": "spec.model.width",
    "tensorparallel": "spec.parallelism.tensor",
    "tensormodelparallelsize": "spec.parallelism.tensor",
    "pipelinemodelparallelsize": "spec.parallelism.pipeline",
    "lora": "spec.adapter.lora",
    "peft": "spec.adapter.lora",
    "peftconfig": "spec.adapter.lora",
    "usepeft": "spec.adapter.lora",
    "lorar": "spec.adapter.lora.rank",
    "loraalpha": "spec.adapter.lora.alpha",
    "loradropout": "spec.adapter.lora.dropout",
    "targetmodules": "spec.adapter.lora.targets",
    "loratargetmodules": "spec.adapter.lora.targets",
    "userslora": "spec.adapter.lora.rankStabilized",
}
"""From a name in nanoGPT, Hugging Face's Trainer, PEFT, Megatron-LM or torchtitan, in lower case without underscores,
to its place in a training run."""

_UNITS = {
    "spec.training.batch.tokens": ", which counts tokens and not sequences",
    f"{_SCHEDULE}.warmupFraction": ", a fraction of the steps",
    f"{_SCHEDULE}.finalFraction": ", a fraction of the peak",
}
_DERIVED = frozenset({"gradientaccumulationsteps", "gradaccumsteps", "accumulation"})
_NOT_HERE = {
    "lora": "every weight of a pretraining is trained; adapters are spec.adapter.lora of an AlignmentRun",
    "peft": "every weight of a pretraining is trained; adapters are spec.adapter.lora of an AlignmentRun",
    "qlora": "weights are not quantised; adapters are spec.adapter.lora of an AlignmentRun",
    "lion": "spec.training.optimizer is adamW or muon",
}


def remedy_for(name: str, near: str | None, exists: Callable[[FieldPath], bool]) -> str | None:
    """What to do with the field `name`, which is none of ours where it stands; None where that is not known.

    Args:
        near: a field of ours at that place with a name like it.
        exists: whether documents of this kind have a field.
    """
    word = re.sub(r"[^a-z0-9]", "", name.lower())
    if word in _DERIVED:
        return "remove it; it follows from spec.training.batch.tokens and batch.microBatch"
    place = _PLACES.get(word)
    if place is not None and exists(tuple(place.split("."))):
        return None if place.rpartition(".")[2] == near else f"write {place}{_UNITS.get(place, '')}"
    return f"remove it; {_NOT_HERE[word]}" if word in _NOT_HERE else None
