"""Everything the rules ask about a document, computed in one pass over one tokenisation.

Measures are columns and decisions are made over the columns afterwards (`decide.py`), so that a threshold can change
anew without reading a text again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from kindling_api.v1alpha1.filters import Filter
from kindling_dataprep.steps.adult import SITES, adult
from kindling_dataprep.steps.c4 import c4
from kindling_dataprep.steps.language import language
from kindling_dataprep.steps.quality import fine_web, gopher_quality
from kindling_dataprep.steps.repetition import gopher_repetition
from kindling_dataprep.steps.spam import spam
from kindling_dataprep.steps.words import Words, split_words

Columns = Mapping[str, Any]
"""By name, what `pa.table` takes for a column."""

MEASURES: dict[str, Callable[[Sequence[str], Words], Columns]] = {
    "language": language,
    "gopherQuality": gopher_quality,
    "gopherRepetition": gopher_repetition,
    "c4": c4,
    "fineWeb": fine_web,
    "spam": spam,
    "adult": adult,
}
"""For each rule set that decides by measures, the function that gives its columns."""


def measure(
    texts: Sequence[str],
    filters: Sequence[Filter],
    *,
    languages: Sequence[str] = (),
    urls: Sequence[str] = (),
    sites: Collection[str] = SITES,
) -> pa.Table:
    """One row a text, one column a measure, named `<filter>.<measure>`, as in `gopherQuality.words`.

    Counts are int64, names strings, everything else float64. A fraction of nothing (of no lines, no words, no
    characters) is 0.

    Args:
        texts: Some documents.
        filters: The rule sets whose measures are asked for.
        languages: The languages of the texts, whose rules they get; without, all are in English.
        urls: Where the documents were found, for `adult`; "" where that is not known.
        sites: Domains of adult sites.
    """
    measures = MEASURES | {"adult": partial(adult, urls=urls, sites=sites)}
    words = split_words(texts, languages)
    columns: dict[str, Any] = {"": np.empty(len(texts))}  # a table needs a column to have rows; dropped in the end
    for name in dict.fromkeys(each.chosen[0] for each in filters):
        if name in MEASURES:
            columns |= {f"{name}.{key}": values for key, values in measures[name](texts, words).items()}
    table = pa.table(columns)
    return table.drop_columns([""])
