"""Memory of finding the near-duplicates of very many documents, from signatures on disk to the list of what goes.

    python bench/dataprep/clustering.py [--documents 10000000] [--folder FOLDER] [--json OUT]

The fingerprints are simulated, as the first stage of a build would have written them: random digests and band keys, of
which a tenth of the documents have all in common with another one (exact copies) and a fifth some bands (pairs of
Jaccard 0.8 and above). Verification is left out, since its memory depends on a group of texts and not on their number;
every candidate counts as similar. Each step runs in a process of its own, whose largest resident size is reported.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common import options_of, write_figures

from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.storage import StorageSpec
from kindling_dataprep.executors.tasks import Job
from kindling_dataprep.output.work import WORK
from kindling_dataprep.stages.clean import band_column, documents_path
from kindling_dataprep.stages.corpus import Corpus
from kindling_dataprep.stages.deduplicate import BandTask, candidates_of, find_copies, pair_band, write_copies
from kindling_dataprep.steps.clusters import near_duplicates

PART_DOCUMENTS = 100_000
BANDS = 20
SHARED_BANDS = 5
"""Of a near-duplicate and its original: 0.8 to the power of 6 rows, of 20."""


def main() -> None:
    """Writes the fingerprints, runs the steps, and reports."""
    parser = options_of(__doc__)
    parser.add_argument("--documents", type=int, default=10_000_000)
    parser.add_argument("--folder", type=Path, help="where to write; 2.5 GB for 10 million documents")
    options = parser.parse_args()
    figures: dict[str, Any] = {"documents": options.documents}
    with tempfile.TemporaryDirectory(prefix="kindling-bench-", dir=options.folder) as folder:
        corpus = simulated(options.documents, Path(folder))
        figures["copies"] = _measured(copies, corpus)
        figures["one band"] = _measured(one_band, corpus)
        for band in range(1, BANDS):
            _measured(one_band, corpus, band)
        figures["pairs and clusters"] = _measured(pairs_and_clusters, corpus)
    for name, figure in figures.items():
        print(f"{name:<22}{json.dumps(figure)}")
    write_figures(options.json, figures)


def simulated(documents: int, folder: Path) -> Corpus:
    """The tables that the first stage would have written, without texts."""
    source = {"sources": [{"uri": "nowhere"}], "tokenizer": {"byte": {}}}
    spec = DatasetBuildSpec.model_validate_json(json.dumps(source))
    job = Job(spec, StorageSpec(uri=folder.as_uri()), "datasets/simulated")
    (folder / "datasets" / "simulated" / WORK).mkdir(parents=True)
    starts = np.append(np.arange(0, documents, PART_DOCUMENTS), documents)
    generator = np.random.default_rng(0)
    before: dict[str, np.ndarray] = {}
    for part, count in enumerate(np.diff(starts)):
        columns = {band_column(band): generator.integers(0, 2**64, count, np.uint64) for band in range(BANDS)}
        columns["low"], columns["high"] = generator.integers(0, 2**64, (2, count), np.uint64)
        if before:
            _copy(columns, before, slice(0, count // 10), [*columns])
            near = [band_column(int(band)) for band in generator.choice(BANDS, SHARED_BANDS, replace=False)]
            _copy(columns, before, slice(count // 10, 3 * count // 10), near)
        before = columns
        digests = np.stack([columns["low"], columns["high"]], axis=1).view("V16").ravel()
        table = {
            "id": [f"0/texts.jsonl#{starts[part] + row}" for row in range(count)],
            "digest": pa.array(digests.tolist(), pa.binary(16)),
            "characters": generator.integers(500, 20_000, count),
        }
        table |= {name: columns[name] for name in columns if name not in ("low", "high")}
        pq.write_table(pa.table(table), folder / "datasets/simulated" / documents_path(part))
    return Corpus(job, starts)


def _copy(columns: dict[str, Any], before: dict[str, Any], rows: slice, names: list[str]) -> None:
    for name in names:
        found = before[name][rows]
        columns[name][rows][: len(found)] = found


def copies(corpus: Corpus) -> dict[str, int]:
    """The step in which digests are compared."""
    found = find_copies(corpus)
    write_copies(corpus, found)
    return {"copies": len(found.removed)}


def one_band(corpus: Corpus, band: int = 0) -> dict[str, int]:
    """A band's task."""
    _, part = pair_band(BandTask(corpus, band))
    return {"bytes": sum(file.size for file in part.files)}


def pairs_and_clusters(corpus: Corpus) -> dict[str, int]:
    """What the driver does with the pairs of all bands."""
    pairs = candidates_of(corpus, BANDS)
    characters = np.concatenate([column.to_numpy() for column in corpus.column("characters")])
    found = near_duplicates([characters], pairs, np.ones(len(pairs)))
    return {"pairs": len(pairs), "removed": len(found.removed)}


def _measured(step: Callable[..., dict[str, int]], *arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_in_process, (step, arguments))


def _in_process(step: Callable[..., dict[str, int]], arguments: tuple[Any, ...]) -> dict[str, Any]:
    started = time.monotonic()
    facts = step(*arguments)
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    peak = int(line.split()[1]) // 1024
    return facts | {"seconds": round(time.monotonic() - started, 1), "peakMegabytes": peak}


if __name__ == "__main__":
    main()
