"""The tables that account for every record read: the removed, each with its reason, the kept, and what was measured.

`removed/part-*.parquet` and `kept/part-*.parquet` belong to the product. Their rows add up: one for each record,
those of web archives that are no pages among them (by the rule `noPage`).
`measures/part-*.parquet` has a row for each document that the rules measured, so that they can be applied with other
thresholds: its `id`, its `characters` after repair, the `rule` that removed it (null where all rules let it stay), one
column a measure, named as in `gopherQuality.words`, and `rulesLanguage`, the language whose rules it got, where rules
ask for one. `lines/part-*.parquet` has a row for each document and each rule that took lines out of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_dataprep.output.work import read_table
from kindling_dataprep.records import LinesRemoved, Removal
from kindling_dataprep.steps.pii import kinds_of, redact
from kindling_storage import ObjectStore

REMOVED = "removed"
KEPT = "kept"
MEASURES = "measures"
LINES = "lines"
SIGNATURES = "signatures"

REMOVED_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source": pa.int32(),
        "rule": pa.string(),
        "measure": pa.string(),
        "value": pa.float64(),
        "threshold": pa.float64(),
        "kept": pa.string(),
        "jaccard": pa.float64(),
        "offset": pa.int64(),
        "unread": pa.int64(),
        "excerpt": pa.string(),
    }
)
"""One row a removed record; `kept` is the document that stays in a duplicate's place, `jaccard` their similarity.
`offset` and `unread` are the bytes of the file, as stored, that a bad record cost."""

KEPT_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "source": pa.int32(),
        "digest": pa.binary(16),
        "characters": pa.int64(),
        "bytes": pa.int64(),
        "words": pa.int64(),
        "tokens": pa.int64(),
        "excerpt": pa.string(),
    }
)
"""One row a document that stays; `digest` is that of its normalised text, `tokens` counts the end-of-document token."""

SIGNATURES_SCHEMA = pa.schema({"id": pa.string(), "source": pa.int32(), "signature": pa.binary()})
"""One row a document that stays, where the spec wants an index; see `kindling_dataprep.similar`."""

LINES_SCHEMA = pa.schema(
    {"id": pa.string(), "rule": pa.string(), "lines": pa.int64(), "characters": pa.int64(), "excerpt": pa.string()}
)
"""`excerpt` is the first line that went, where the rule tells it."""


def part_path(table: str, number: int) -> str:
    """Where part `number` of a table lies in the product."""
    return f"{table}/part-{number:05d}.parquet"


def removed_table(removals: Iterable[Removal], spec: DatasetBuildSpec) -> pa.Table:
    """Rows of the ledger; where the spec asks for no personal information, the excerpts hold none either."""
    hidden = kinds_of(spec)
    return pa.Table.from_pylist([_row(removal, hidden) for removal in removals], schema=REMOVED_SCHEMA)


def lines_table(rows: Iterable[LinesRemoved], spec: DatasetBuildSpec) -> pa.Table:
    """Rows of the ledger of lines, likewise."""
    hidden = kinds_of(spec)
    cleaned = [asdict(row) | {"excerpt": redact(row.excerpt, hidden)[0]} for row in rows]
    return pa.Table.from_pylist(cleaned, schema=LINES_SCHEMA)


def _row(removal: Removal, hidden: Collection[str]) -> dict[str, Any]:
    return {
        "id": removal.id,
        "source": int(removal.id.partition("/")[0]),
        "rule": removal.rule,
        "measure": removal.measure,
        "value": removal.value,
        "threshold": removal.threshold,
        "kept": removal.kept,
        "jaccard": removal.value if removal.measure == "jaccard" else None,
        "offset": removal.offset,
        "unread": removal.unread,
        "excerpt": redact(removal.excerpt, hidden)[0],
    }


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a table as Parquet; equal tables give equal bytes."""
    pq.write_table(table, path, compression="zstd")


def read_removed(store: ObjectStore, columns: Sequence[str] | None = None) -> pa.Table:
    """All removed records of the product, or of the build under way, in the folder `store`."""
    return _read(store, REMOVED, REMOVED_SCHEMA, columns)


def read_kept(store: ObjectStore, columns: Sequence[str] | None = None) -> pa.Table:
    """All documents that stay, in the order of the sources."""
    return _read(store, KEPT, KEPT_SCHEMA, columns)


def read_measures(store: ObjectStore, columns: Sequence[str] | None = None) -> pa.Table:
    """The measures of all documents that the rules looked at, in the sources' order; their columns differ by build."""
    return pa.concat_tables(measures(store, columns))


def measures(store: ObjectStore, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The same, part by part."""
    names = list(columns) if columns is not None else None
    for info in store.list(f"{MEASURES}/part-"):
        yield read_table(store, info.path, names)


def read_lines(store: ObjectStore) -> pa.Table:
    """What rules took out of documents, in the order of the sources."""
    return _read(store, LINES, LINES_SCHEMA, None)


def _read(store: ObjectStore, table: str, schema: pa.Schema, columns: Sequence[str] | None) -> pa.Table:
    names = list(columns) if columns is not None else schema.names
    parts = [read_table(store, info.path, names) for info in store.list(f"{table}/part-")]
    empty = pa.schema([schema.field(name) for name in names]).empty_table()
    return pa.concat_tables([empty, *parts], promote_options="default")  # older products lack columns
