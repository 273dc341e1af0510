"""datatrove's MinHash deduplication of a folder of JSON lines; see ../dedup.py.

python datatrove_dedup.py INPUT_FOLDER WORK_FOLDER
"""

import json
import struct
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import JsonlReader


def main() -> None:
    """The four stages, in this process, with the CPU time and the numbers of the documents removed as JSON."""
    source, work = sys.argv[1], Path(sys.argv[2])
    config = MinhashConfig()
    stages = [
        ([JsonlReader(source), MinhashDedupSignature(str(work / "signatures"), config)], 1),
        ([MinhashDedupBuckets(str(work / "signatures"), str(work / "pairs"), config=config)], config.num_buckets),
        ([MinhashDedupCluster(str(work / "pairs"), str(work / "remove"), config=config)], 1),
        ([JsonlReader(source), MinhashDedupFilter(str(work / "remove"))], 1),
    ]
    started = time.process_time()
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(work / f"logs{number}")).run()
    seconds = time.process_time() - started
    data = (work / "remove/000000.remove").read_bytes()
    removed = [number for (number,) in struct.iter_unpack("<I", data)]
    print(json.dumps({"seconds": round(seconds, 1), "counts": {"minHash": len(removed)}, "removed": removed}))


if __name__ == "__main__":
    main()
