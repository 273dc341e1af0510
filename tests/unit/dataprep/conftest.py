"""A small corpus with something for every stage to do, and run files over it."""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kindling_api.base import key_of
from kindling_api.v1alpha1.dataset_build import DatasetBuildSpec
from kindling_api.v1alpha1.runfile import DatasetBuildFile

NewRun = Callable[..., DatasetBuildFile]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Modules of the standard library, a copy, a near copy, binary garbage, and JSON lines of which one is bad."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    library = Path(sysconfig.get_path("stdlib"))
    for name in ("abc.py", "antigravity.py", "bisect.py", "cmd.py", "colorsys.py"):
        (folder / name).write_bytes((library / name).read_bytes())
    module = (folder / "cmd.py").read_text()
    (folder / "zz_copy.py").write_text(module.replace("\n", "\n\n"))
    (folder / "zz_near.py").write_text(module.replace("interpreter", "whatever", 1) + "\nend = 1\n")
    (folder / "zz_binary.py").write_bytes(b"\x01\x02\x03\xff" * 500)
    texts = [f"The record of number {number} says that {number * 7} is it." for number in range(300)]
    records = [json.dumps({"text": text}) for text in texts]
    (folder / "zz_records.jsonl").write_text("\n".join([*records, "{torn"]))
    return folder


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    """Makes a run file; the store is a folder of the test, and the fields given are the spec's."""

    def make(*sources: Path | dict[str, Any], store: str = "store", **fields: Any) -> DatasetBuildFile:
        listed = [source if isinstance(source, dict) else {"uri": str(source)} for source in sources]
        fields.setdefault("tokenizer", {"train": {"vocabSize": 512}})
        spec = DatasetBuildSpec.model_validate_json(json.dumps({"sources": listed, **fields}))
        document = {
            "name": "test",
            "key": key_of(spec.model_dump(mode="json", exclude={"engine", "bad_records"})),
            "output": {"uri": (tmp_path / store).as_uri() if "://" not in store else store},
            "spec": spec.document(),
        }
        return DatasetBuildFile.model_validate_json(json.dumps(document))

    return make
