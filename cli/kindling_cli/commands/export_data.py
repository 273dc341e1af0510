"""`kindling export --to`: a dataset as another trainer reads it."""

from __future__ import annotations

from pathlib import Path

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_cli.product_folders import check_free, find
from kindling_cli.products import read_product
from kindling_dataprep.output.exports import Form, export_dataset

FILES_SHOWN = 6


def export_data(dataset: str, folder: Path, form: Form, *, store: str) -> None:
    """Write the dataset that `dataset` means into a new or empty folder.

    Raises:
        SpecError: it means no dataset, the folder is in use, or the form cannot hold the dataset.
    """
    check_free(folder)
    place = find(dataset, store, ("DatasetBuild",))
    manifest = read_product(place.store)
    if not isinstance(manifest, DatasetManifest):
        remedy = "name a dataset, or leave --to out"
        raise SpecError(explain(f"--to {form}", found=f"a {manifest.kind}", allowed="a dataset", remedy=remedy))
    names = export_dataset(place.store, manifest, folder, form)
    shown = ", ".join(names) if len(names) <= FILES_SHOWN else f"{names[0]} … {names[-1]}, {len(names)} files"
    print(f"{place.shown} is in {folder}: {shown}.")
