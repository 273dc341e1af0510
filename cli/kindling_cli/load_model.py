"""Models ready to continue a text, from whatever a user names: a run's model, a checkpoint, a Hugging Face folder."""

from __future__ import annotations

import warnings

import torch
from tokenizers import Tokenizer

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import MANIFEST, MODEL_FOLDER, CheckpointManifest, ModelManifest
from kindling_cli.product_folders import MODELS, ProductFolder, find
from kindling_cli.products import Dataset, dataset_of, read_product
from kindling_trainer.checkpoint.load import load, model_state
from kindling_trainer.inference.generate import Device, Generator, check_device, load_model, placed
from kindling_trainer.models import Decoder, build_model


def load_generator(what: str, store: str, device: Device = "cpu") -> Generator:
    """The model that `what` means, on a device.

    Raises:
        SpecError: there is no such device; it means no model, or a model of a kind that Kindling has not.
        IntegrityError: it is damaged.
    """
    check_device(device)
    place = find(what, store, MODELS)
    if not place.store.exists(MANIFEST):
        return load_model(place.store, device)
    manifest = read_product(place.store)
    if isinstance(manifest, ModelManifest):
        return load_model(place.store.child(MODEL_FOLDER), device)
    checkpoint = checkpoint_manifest(place)
    dataset = dataset_of_checkpoint(place, checkpoint)
    tokenizer = Tokenizer.from_str(dataset.store.get(dataset.manifest.tokenizer.path).decode())
    model = placed(weights_of(place, checkpoint), device)
    return Generator(model, tokenizer, dataset.manifest.tokenizer.end_of_document)


def checkpoint_manifest(place: ProductFolder) -> CheckpointManifest:
    """The manifest of the checkpoint in a folder.

    Raises:
        SpecError: something else is there, or a checkpoint of adapters alone.
    """
    manifest = read_product(place.store)
    if not isinstance(manifest, CheckpointManifest):
        allowed = "a model, a checkpoint or a Hugging Face folder"
        raise SpecError(explain(place.shown, found=f"a {manifest.kind}", allowed=allowed, remedy="name a model"))
    if manifest.adapter is not None:
        allowed, remedy = "one with all weights", "use the finished model, which has the adapters in its weights"
        raise SpecError(explain(place.shown, found="a checkpoint of adapters", allowed=allowed, remedy=remedy))
    return manifest


def dataset_of_checkpoint(place: ProductFolder, manifest: CheckpointManifest) -> Dataset:
    """The dataset of a checkpoint, which holds the tokenizer.

    Raises:
        SpecError: it is not in the checkpoint's store.
    """
    dataset = dataset_of(place.store, manifest)
    if dataset is None:
        found = f"no dataset with digest {manifest.dataset} in its store"
        remedy = "copy the dataset back, or use the finished model, which has a tokenizer of its own"
        raise SpecError(explain(place.shown, found=found, allowed="a checkpoint beside its dataset", remedy=remedy))
    return dataset


def weights_of(place: ProductFolder, manifest: CheckpointManifest) -> Decoder:
    """The model in a checkpoint, on the CPU, in evaluation mode."""
    with torch.device("meta"):
        model = build_model(manifest.shape, manifest.shape.padded_vocab(manifest.vocab_size))
    model.to_empty(device="cpu")
    with warnings.catch_warnings():  # DCP warns that one process loads alone, which is what is meant here
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(place.store, model_state(model), None)
    return model.eval()
