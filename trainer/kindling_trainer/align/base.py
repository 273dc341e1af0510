"""The model that an alignment starts from, without its weights: sizes, tokens, and how dialogues are written for it."""

from __future__ import annotations

from dataclasses import dataclass

from kindling_api.base import Digest, digest_of
from kindling_api.v1alpha1.model import ModelShape
from kindling_api.v1alpha1.products import MODEL_FOLDER, ModelManifest
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_storage import ObjectStore
from kindling_trainer.align.check import check_template
from kindling_trainer.align.template import DEFAULT, ChatTemplate, add_special_tokens
from kindling_trainer.checkpoint.huggingface import ChatFiles, read_chat_template, read_shape, read_tokenizer
from kindling_trainer.inputs import input_store, read_base
from kindling_trainer.setup import Vocabulary

ROWS_MULTIPLE = 64
"""The embedding is padded to a multiple of this, on every layout alike: special tokens make odd numbers of rows, which
no tensor parallelism divides."""


@dataclass(frozen=True)
class Base:
    """A model to align."""

    store: ObjectStore
    """Its Hugging Face folder."""
    digest: Digest | None
    """Of its manifest, where it is a product of ours."""
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
    tokenizer, end_of_document = read_tokenizer(store)
    source = _template(run, store)
    add_special_tokens(tokenizer, source)
    template = ChatTemplate(source, tokenizer, end_of_document=end_of_document)
    stop = check_template(template)
    file = tokenizer.to_str().encode()
    vocabulary = Vocabulary(
        file=file,
        tokenizer=tokenizer,
        digest=digest_of(file),
        size=max(rows, tokenizer.get_vocab_size()),
        end_of_document=end_of_document,
        chat=ChatFiles(template.exported, stop),
    )
    multiple = max(ROWS_MULTIPLE, shape.vocab_multiple)
    return Base(
        store, None if manifest is None else manifest.digest, shape.model_copy(update={"vocab_multiple": multiple}),
        vocabulary, template,
    )  # fmt: skip


def _template(run: AlignmentRunFile, store: ObjectStore) -> str:
    if run.spec.chat_template != "default":
        return run.spec.chat_template
    return read_chat_template(store) or DEFAULT
