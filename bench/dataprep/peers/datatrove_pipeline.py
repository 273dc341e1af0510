"""datatrove's filters, MinHash deduplication and tokenization, one worker; see ../end_to_end.py.

python datatrove_pipeline.py INPUT_FOLDER TOKENIZER WORK_FOLDER
"""

import json
import sys
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer
from datatrove.pipeline.writers import JsonlWriter


def main() -> None:
    """All stages in this process, and how many tokens came out as JSON."""
    source, tokenizer, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    config = MinhashConfig()
    filters = [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(char_duplicates_ratio=0.1),
    ]
    kept = str(work / "kept")
    tokens = DocumentTokenizer(str(work / "tokens"), tokenizer_name_or_path=tokenizer, eos_token="<|endoftext|>")
    stages = [
        ([JsonlReader(source), *filters, JsonlWriter(kept)], 1),
        ([JsonlReader(kept), MinhashDedupSignature(str(work / "signatures"), config)], 1),
        ([MinhashDedupBuckets(str(work / "signatures"), str(work / "pairs"), config=config)], config.num_buckets),
        ([MinhashDedupCluster(str(work / "pairs"), str(work / "remove"), config=config)], 1),
        ([JsonlReader(kept), MinhashDedupFilter(str(work / "remove")), tokens], 1),
    ]
    for number, (pipeline, tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(work / f"logs{number}")).run()
    size = sum(path.stat().st_size for path in (work / "tokens").glob("*.ds"))
    print(json.dumps({"tokens": size // 2}))


if __name__ == "__main__":
    main()
