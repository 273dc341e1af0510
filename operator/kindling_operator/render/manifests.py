"""Documents as the YAML of the objects that the operator would make of them, without a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import yaml

from kindling_api.base import API_VERSION, digest_of
from kindling_api.documents import Document
from kindling_api.errors import SpecError, explain
from kindling_api.references import Reference, order, reference_to, uses
from kindling_api.resolve import Finished, Waiting, resolve
from kindling_operator.render import Rendered, render
from kindling_operator.settings import Settings
from kindling_operator.world import Object


def manifests(documents: Sequence[Document], settings: Settings) -> Iterator[str]:
    """The objects of the documents' first attempts, in pieces of YAML; a document comes after those that it needs.

    What another document is to make, here or in the cluster, is not there: something stands in for it.

    Raises:
        SpecError: a document cannot be run on a cluster.
    """
    ordered = order(documents, exists=lambda _: True)
    products = _stand_ins(ordered)
    for document in ordered:
        rendered = _rendered(document, settings, products)
        yield f"# {reference_to(document)}\n"
        for reference in (candidate for use in uses(document) for candidate in use.candidates if candidate in products):
            yield f"# What {reference} makes is not known yet; {products[reference].uri} stands in for it.\n"
        for item in (*rendered.apply, *rendered.create):
            yield "---\n" + text_of(item)


def text_of(item: Object) -> str:
    """An object as YAML for people: fields in our order, nothing abbreviated, a text of several lines as such."""
    return yaml.dump(item, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _rendered(document: Document, settings: Settings, products: dict[Reference, Finished]) -> Rendered:
    storage = document.spec.storage or settings.storage
    if storage is None:
        remedy = "set spec.storage, or give the settings of an installation that has one"
        raise SpecError(
            explain(f"{reference_to(document)}: spec.storage", found="nothing", allowed="a place", remedy=remedy)
        )
    run_file = resolve(document, storage=storage, finished=products)
    assert not isinstance(run_file, Waiting), "every reference has a product or a stand-in"
    metadata = {"name": document.metadata.name, "namespace": document.metadata.namespace}
    resource: Object = {"apiVersion": API_VERSION, "kind": document.kind, "metadata": metadata}
    return render(settings, resource, run_file)


def _stand_ins(documents: Sequence[Document]) -> dict[Reference, Finished]:
    """One product for each reference; where its kind is left open, that of the document given, or else the first."""
    given = {reference_to(document) for document in documents}
    named = [use.candidates for document in documents for use in uses(document) if use.candidates]
    chosen = [next((one for one in candidates if one in given), candidates[0]) for candidates in named]
    return {one: Finished(f"s3://not-known-yet/{one}", digest_of(str(one).encode())) for one in chosen}


class _Dumper(yaml.SafeDumper):
    """Without aliases, and with blocks."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if not text.isascii() else "|" if "\n" in text else None  # other styles lose Unicode's line breaks
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
