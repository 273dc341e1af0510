"""The model that an alignment starts from, without its weights: sizes, tokens, and how dialogues are written for it."""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import AddedToken

from kindling_api.base import Digest, digest_of
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import MODEL_FOLDER, ModelManifest
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_storage import ObjectStore
from kindling_trainer.align.data.check import check_template
from kindling_trainer.chat.special_tokens import SpecialTokens
from kindling_trainer.chat.template import ChatTemplate, add_special_tokens, chosen_template
from kindling_trainer.checkpoint.huggingface import ChatFiles, read_chat_template, read_shape, read_tokenizer
from kindling_trainer.data.inputs import input_store, read_base
from kindling_trainer.loop.setup import Vocabulary

ROWS_MULTIPLE = 64
"""The embedding is padded to a multiple of this, on every layout alike: special tokens make odd numbers of rows, which
no tensor parallelism divides."""

PADDING = "<|pad|>"
"""The padding token of a reward model whose base has none of its own."""


@dataclass(frozen=True)
class Base:
    """A model to align."""

    store: ObjectStore
    """The Hugging Face folder of the model."""
    digest: Digest | None
    """Digest of the manifest, where the model is a product of ours."""
    shape: ModelShape
    vocabulary: Vocabulary
    """Its tokens, and those that the template needs beside them."""
    template: ChatTemplate


def open_base(run: AlignmentRunFile) -> Base:
    """The base of a run, with the special tokens of the chat template added to its tokenizer.

    Raises:
        SpecError: there is no such model, or the template is wrong.
        IntegrityError: it is another one than the run was made for.
    """
    manifest = read_base(run)
    folder = input_store(run.base, run)
    store = folder if manifest is None else folder.child(MODEL_FOLDER)
    shape, rows = read_shape(store)
    if isinstance(manifest, ModelManifest):
        shape = manifest.shape
    tokenizer, special = read_tokenizer(store)
    own = read_chat_template(store)
    source = chosen_template(run.spec.chat_template, own)
    if source != own:  # a model's own template writes its own tokens, or what looks like one as plain text
        add_special_tokens(tokenizer, source)
    template = ChatTemplate(source, tokenizer, special.named)
    stop = check_template(template)
    if run.spec.method.reward is not None:
        special, template = _with_padding(special, template)
    file = tokenizer.to_str().encode()
    vocabulary = Vocabulary(
        file=file,
        tokenizer=tokenizer,
        digest=digest_of(file),
        size=max(rows, tokenizer.get_vocab_size()),
        end_of_document=special.eos,
        special=special,
        base_rows=rows,
        chat=ChatFiles(template.exported, stop),
    )
    multiple = max(ROWS_MULTIPLE, shape.vocab_multiple)
    return Base(
        store, None if manifest is None else manifest.digest, shape.model_copy(update={"vocab_multiple": multiple}),
        vocabulary, template,
    )  # fmt: skip


def _with_padding(special: SpecialTokens, template: ChatTemplate) -> tuple[SpecialTokens, ChatTemplate]:
    """A padding token that no dialogue has: transformers takes the reward at the last token that is none, and many a
    model is padded with the very token that ends each dialogue."""
    tokenizer = template.tokenizer
    (example,) = template.encode([(template.example(), 0)])
    if special.pad is not None and special.pad not in example.tokens:
        return special, template
    tokenizer.add_special_tokens([AddedToken(PADDING, normalized=False, special=True)])
    pad = tokenizer.token_to_id(PADDING)
    assert pad is not None
    special = special.padded_with(pad, PADDING)
    return special, ChatTemplate(template.source, tokenizer, special.named)
