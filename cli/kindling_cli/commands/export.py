"""`kindling export`: a model as a Hugging Face folder, or as a GGUF file, on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import ADAPTER_FOLDER, MANIFEST, MODEL_FOLDER, TOKENIZER, ModelManifest
from kindling_cli.load_model import checkpoint_manifest, dataset_of_checkpoint, weights_of
from kindling_cli.product_folders import MODELS, ProductFolder, check_free, file_uri, find
from kindling_cli.products import read_product
from kindling_storage import ObjectStore, open_store
from kindling_trainer.checkpoint.huggingface import Dtype, cast, export, read_shape
from kindling_trainer.checkpoint.huggingface.tokenizer import CHAT_TEMPLATE, GENERATION, TOKENIZER_CONFIG


def export_model(model: str, folder: Path, *, store: str, dtype: Dtype | None = None) -> None:
    """Write the model that `model` means into a new or empty folder, with weights of `dtype`, if that is given.

    Raises:
        SpecError: it means no model, or the folder is in use.
        IntegrityError: the model is damaged.
        StorageError: the folder cannot be written.
    """
    check_free(folder)
    place = find(model, store, MODELS)
    write_model(place, folder)
    if dtype is not None:
        cast(open_store(file_uri(folder)), dtype)
    print(f"{place.shown} is in {folder}, ready for AutoModelForCausalLM.from_pretrained({str(folder)!r}).")


def export_gguf(model: str, folder: Path, *, store: str, dtype: Dtype | None = None) -> None:
    """Write the model that `model` means as a GGUF file in a new or empty folder, with matrices of `dtype`, if given.

    Raises:
        SpecError: it means no model, llama.cpp has no such model or tokenizer, or the folder is in use.
        IntegrityError: the model is damaged.
        StorageError: the folder cannot be written.
    """
    from kindling_trainer.checkpoint.gguf import FILE, write_gguf

    check_free(folder)
    place = find(model, store, MODELS)
    file, name = folder / FILE, model.rstrip("/").rpartition("/")[2]
    if not place.store.exists(MANIFEST):
        write_gguf(place.store, file, name, dtype)
    elif isinstance(read_product(place.store), ModelManifest):
        write_gguf(place.store.child(MODEL_FOLDER), file, name, dtype)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as whole:
            write_model(place, Path(whole))
            write_gguf(open_store(file_uri(Path(whole))), file, name, dtype)
    print(f"{place.shown} is in {file}, ready for llama.cpp.")


def export_adapters(model: str, folder: Path, *, store: str) -> None:
    """Write the adapters that `model` was trained with into a new or empty folder, with the tokenizer beside them.

    Raises:
        SpecError: it means no model, or one without adapters; or the folder is in use.
        StorageError: the folder cannot be written.
    """
    check_free(folder)
    place = find(model, store, MODELS)
    manifest = read_product(place.store) if place.store.exists(MANIFEST) else None
    files = [entry.path for entry in manifest.files] if isinstance(manifest, ModelManifest) else []
    if not any(path.startswith(f"{ADAPTER_FOLDER}/") for path in files):
        allowed, remedy = "the model of a finished run with adapter", "leave --to out, which writes the whole model"
        raise SpecError(explain("--to peft", found=f"no adapters in {place.shown}", allowed=allowed, remedy=remedy))
    for path in files:
        part, _, name = path.partition("/")
        if part == ADAPTER_FOLDER or name in (TOKENIZER, TOKENIZER_CONFIG, CHAT_TEMPLATE, GENERATION):
            place.store.download(path, folder / name)
    print(f"The adapters of {place.shown} are in {folder}, ready for PeftModel.from_pretrained(base, {str(folder)!r}).")


def write_model(place: ProductFolder, folder: Path) -> None:
    """Write a model into a folder, in Hugging Face's form.

    Raises:
        SpecError: it is no model.
        IntegrityError: it is damaged.
        StorageError: the folder cannot be written.
    """
    if not place.store.exists(MANIFEST):
        read_shape(place.store)  # a Hugging Face folder, or nothing that can be exported
        _copy(place.store, folder)
    elif isinstance(read_product(place.store), ModelManifest):
        _copy(place.store.child(MODEL_FOLDER), folder)
    else:
        _export_checkpoint(place, open_store(file_uri(folder)))


def _copy(source: ObjectStore, folder: Path) -> None:
    """A model that is in Hugging Face form already."""
    for info in source.list():
        source.download(info.path, folder / info.path)


def _export_checkpoint(place: ProductFolder, target: ObjectStore) -> None:
    manifest = checkpoint_manifest(place)
    dataset = dataset_of_checkpoint(place, manifest)
    tokenizer = dataset.manifest.tokenizer
    weights = ((name, parameter.detach()) for name, parameter in weights_of(place, manifest).named_parameters())
    export(
        target,
        weights,
        manifest.shape,
        vocab_size=manifest.vocab_size,
        tokenizer=dataset.store.get(tokenizer.path),
        end_of_document=tokenizer.end_of_document,
    )
