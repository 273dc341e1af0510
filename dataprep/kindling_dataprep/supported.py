"""What the spec can say and this version cannot do, refused before anything is read.

The spec is complete from the start so that documents need not change; a rule that is silently not applied would be
worse than a refusal.
"""

from __future__ import annotations

from collections.abc import Sequence

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep.steps.language import languages


def check_supported(spec: DatasetBuildSpec) -> None:
    """Refuse a spec that asks for more than this version does.

    Raises:
        SpecError: naming the first such field.
    """
    for number, each in enumerate(spec.filters):
        if each.language is not None:
            _check_languages(f"spec.filters[{number}].language.keep", each.language.keep)


def _check_languages(field: str, codes: Sequence[str]) -> None:
    known = languages()
    unknown = [code for code in codes if code not in known]
    if unknown:
        allowed = f"languages that are told apart: {', '.join(known)}"
        raise SpecError(explain(field, found=", ".join(unknown), allowed=allowed, remedy="use their codes"))
