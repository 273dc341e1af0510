"""Real text that this machine has, as JSON lines: documentation, manual pages, the sources of Go and Python packages.

    python bench/dataprep/real_text.py OUT.jsonl [--megabytes 200]

Each file is a document; those beyond 200 KB are cut, since few web pages are longer. The order is shuffled with a fixed
seed, so that any beginning of the file is a fair sample. Some files are copies or near-copies of others, as on the web.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

LONGEST = 200_000
SHORTEST = 200
PATTERNS = [
    "/usr/share/common-licenses/*",
    "/usr/share/doc/**/*",
    "/usr/share/man/man*/*.gz",
    f"{sysconfig.get_path('stdlib')}/*.py",
    "/usr/local/go/src/**/*.go",
    f"{sysconfig.get_path('purelib')}/**/*.py",
    f"{sysconfig.get_path('purelib')}/**/*.md",
]


def main() -> None:
    """Writes the file, and says what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--megabytes", type=int, default=200)
    options = parser.parse_args()
    found = texts(options.megabytes * 1_000_000)
    with open(options.out, "w") as file:
        file.writelines(json.dumps({"text": text, "id": str(number)}) + "\n" for number, text in enumerate(found))
    print(f"{len(found):,} documents, {sum(map(len, found)) / 1e6:.1f} million characters")


def texts(wanted: int) -> list[str]:
    """Documents of `wanted` characters together, or of all that there is."""
    found, total = [], 0
    for text in _documents():
        found.append(text)
        total += len(text)
        if total >= wanted:
            break
    random.Random(0).shuffle(found)
    return found


def read(path: Path) -> list[str]:
    """The texts of a file that `main` wrote."""
    with open(path) as file:
        return [json.loads(line)["text"] for line in file]


def _documents() -> Iterator[str]:
    for pattern in PATTERNS:
        for path in sorted(glob.glob(pattern, recursive=True)):
            try:
                data = Path(path).read_bytes()
                data = gzip.decompress(data) if path.endswith(".gz") else data
            except (OSError, EOFError):
                continue
            text = data[:LONGEST].decode(errors="replace")
            if len(text) >= SHORTEST and "\0" not in text and text.count("\ufffd") < len(text) / 100:
                yield text


if __name__ == "__main__":
    main()
