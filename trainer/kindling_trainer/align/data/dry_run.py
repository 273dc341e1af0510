"""What an alignment would learn from, looked at whole, in seconds, before anything is started. Torch-free."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer, models, pre_tokenizers

from kindling_api.v1alpha1.alignment_run import AlignmentData, AlignmentRunSpec
from kindling_storage.globs import OpenStore
from kindling_trainer.align.data.check import Findings, check_findings, check_template
from kindling_trainer.align.data.read import open_sources
from kindling_trainer.align.data.tokenize import read_dialogues, read_pairs, read_prompts
from kindling_trainer.chat.template import ChatTemplate, add_special_tokens, chosen_template


@dataclass(frozen=True)
class BaseTokens:
    """What a dry run needs of the model to align."""

    tokenizer: Tokenizer
    named: Mapping[str, str]
    """Its special tokens, by the names that a template has for them."""
    template: str | None
    """The base's own chat template."""
    context: int


def dry_run(spec: AlignmentRunSpec, base: BaseTokens | None, open_store: OpenStore) -> Findings:
    """What is found in the data to learn from; the data that is held out is looked at, too.

    Args:
        base: absent where the base is not there yet; then nothing is said of tokens and of what fits.

    Raises:
        DataError: a record is wrong, or too many are dead.
        SpecError: the template is wrong, or never ends an answer; or the context is larger than the base's.
    """
    template = _template(spec, base)
    check_template(template)
    context = spec.context(base.context) if base else sys.maxsize
    findings = _findings(spec, spec.data, template, context, open_store)
    findings.tokenized = base is not None
    check_findings(findings)
    if spec.validation.data:
        held_out = _findings(spec, spec.validation.data, template, context, open_store)
        check_findings(held_out, where="spec.validation.data")
    return findings


def _findings(
    spec: AlignmentRunSpec,
    data: Sequence[AlignmentData],
    template: ChatTemplate,
    context: int,
    open_store: OpenStore,
) -> Findings:
    sources, method = open_sources(data, open_store), spec.method
    if method.sft is not None:
        all_tokens = method.sft.train_on == "all"
        return read_dialogues(sources, template, context=context, all_tokens=all_tokens)[1]
    if method.dpo is not None or method.reward is not None:
        return read_pairs(sources, template, context=context)[1]
    rollout = method.ppo or method.grpo
    assert rollout is not None
    return read_prompts(sources, template, longest=context - rollout.rollout.max_new_tokens)[1]


def _template(spec: AlignmentRunSpec, base: BaseTokens | None) -> ChatTemplate:
    own = base.template if base else None
    source = chosen_template(spec.chat_template, own)
    tokenizer = Tokenizer.from_str(base.tokenizer.to_str()) if base else stand_in()  # the base's own stays as it is
    if source != own:
        add_special_tokens(tokenizer, source)
    return ChatTemplate(source, tokenizer, base.named if base else None)


def stand_in() -> Tokenizer:
    """In the place of a tokenizer that is not there yet: one that knows every text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: number for number, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer
