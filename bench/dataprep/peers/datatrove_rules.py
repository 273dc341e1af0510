"""datatrove's filters over the first megabytes of a file of JSON lines; see ../rules.py.

python datatrove_rules.py TEXTS.jsonl MEGABYTES
"""

import json
import sys
import time

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)

FILTERS = {
    "gopherQuality": GopherQualityFilter,
    "gopherRepetition": GopherRepetitionFilter,
    "c4": lambda: C4QualityFilter(filter_no_terminal_punct=False),
    "fineWeb": FineWebQualityFilter,
}


def main() -> None:
    """Each filter alone, and all of them one after the other, with the speed of each as JSON."""
    texts, size = [], 0
    with open(sys.argv[1]) as file:
        for line in file:
            texts.append(json.loads(line)["text"])
            size += len(texts[-1].encode())
            if size >= float(sys.argv[2]) * 1e6:
                break
    speed = {}
    for name, kinds in {**{name: [kind] for name, kind in FILTERS.items()}, "together": list(FILTERS.values())}.items():
        filters = [kind() for kind in kinds]
        for each in filters:
            each.filter(Document(text="It loads what it needs. " * 20, id="warm"))
        started = time.process_time()
        for text in texts:
            document = Document(text=text, id="0")  # C4 changes the text
            for each in filters:
                each.filter(document)
        speed[name] = round(size / 1e6 / (time.process_time() - started), 4)
    print(json.dumps({"documents": len(texts), "megabytes": size / 1e6, "speed": speed}))


if __name__ == "__main__":
    main()
