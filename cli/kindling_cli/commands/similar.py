"""`kindling similar`: the documents of a dataset that are most like a text."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kindling_api.errors import SpecError, explain
from kindling_api.v1alpha1.products import DatasetManifest
from kindling_cli.product_folders import find
from kindling_cli.products import read_product
from kindling_dataprep.similar import SimilarDocument, similar


def show_similar(what: str, *, store: str, text: str | None, file: Path | None, limit: int, as_json: bool) -> None:
    """Print the documents, the most similar first.

    Raises:
        SpecError: there is no such dataset, it keeps no signatures, or not one text is given.
    """
    asked = _text(text, file)
    place = find(what, store, ("DatasetBuild",))
    manifest = read_product(place.store)
    if not isinstance(manifest, DatasetManifest):
        raise SpecError(
            explain(repr(what), found=f"a {manifest.kind}", allowed="a dataset", remedy="name a finished DatasetBuild")
        )
    found = similar(place.store, manifest, asked, limit)
    if as_json:
        print(json.dumps([_document(each) for each in found], indent=2, ensure_ascii=False))
    elif found:
        Console(highlight=False).print(_table(found))
    else:
        print("No document shares anything with it.")


def _text(text: str | None, file: Path | None) -> str:
    given = [name for name, value in (("--text", text), ("--file", file)) if value is not None]
    if len(given) != 1:
        found = " and ".join(given) or "neither"
        raise SpecError(explain("--text", found=found, allowed="--text or --file", remedy="give one of them"))
    try:
        asked = text if text is not None else Path(file or "").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "name a file in UTF-8"
        raise SpecError(explain("--file", found=str(error), allowed="a text in UTF-8", remedy=remedy)) from error
    if not asked.strip():
        raise SpecError(explain(given[0], found="an empty text", allowed="some words", remedy="give some"))
    return asked


def _document(found: SimilarDocument) -> dict[str, object]:
    return {"id": found.id, "source": found.source, "jaccard": round(found.jaccard, 4), "beginning": found.excerpt}


def _table(found: list[SimilarDocument]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", expand=True)
    table.add_column("Jaccard", justify="right")
    table.add_column("document", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_column("beginning", ratio=1, overflow="ellipsis", no_wrap=True)
    for each in found:
        table.add_row(f"{each.jaccard:.2f}", Text(each.id), Text(each.source), Text(each.excerpt, "dim"))
    return table
