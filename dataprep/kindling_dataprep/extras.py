"""What a spec names besides its sources: fetched before anything is read, and part of the dataset's key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kindling_api.base import digest_of
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep.output.manifest import inputs_listing
from kindling_dataprep.records import InputFile
from kindling_dataprep.stages.decontaminate import evaluation_files
from kindling_dataprep.steps import adult
from kindling_dataprep.tokenize.pretrained import Existing, fetch
from kindling_storage import ObjectStore
from kindling_toxicity import model as toxicity


@dataclass(frozen=True)
class Extras:
    """Each is there where the spec names it."""

    tokenizer: Existing | None
    """A tokenizer of somebody else's."""
    classifier: bytes | None
    """The toxicity classifier."""
    blocklist: bytes | None
    """Domains of adult sites."""
    evaluations: list[list[InputFile]]
    """The files of each evaluation set."""

    def digests(self) -> dict[str, Any]:
        """What of it decides the result."""
        made = self.tokenizer
        file = made.file if made is not None else None
        files = {"tokenizer": file, "toxicity": self.classifier, "blocklist": self.blocklist}
        digests: dict[str, Any] = {name: digest_of(data) for name, data in files.items() if data is not None}
        if made is not None:
            digests["endOfDocument"] = made.end_of_document
        if self.evaluations:
            digests["decontaminate"] = [digest_of(inputs_listing(each)) for each in self.evaluations]
        return digests


def fetch_extras(spec: DatasetBuildSpec, open_store: Callable[[str], ObjectStore]) -> Extras:
    """Fetches it.

    Raises:
        SpecError, DataError: something is not there, or is not what it is said to be.
        StorageError: a store cannot be reached, or refuses.
    """
    chosen, blocklist = spec.tokenizer.from_, adult.blocklist_of(spec)
    return Extras(
        tokenizer=fetch(chosen, open_store) if chosen is not None else None,
        classifier=toxicity.fetch(spec.toxicity.model, open_store) if spec.toxicity is not None else None,
        blocklist=adult.fetch(blocklist, open_store) if blocklist is not None else None,
        evaluations=evaluation_files(spec.decontaminate, open_store),
    )
