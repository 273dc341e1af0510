"""Every example loads and resolves; test_examples_run.py runs them."""

from pathlib import Path

import pytest

from kindling_api.documents import load
from kindling_api.references import order, reference_to
from kindling_api.resolve import Finished, Waiting, resolve
from kindling_api.v1alpha1.storage import StorageSpec

EXAMPLES = Path(__file__).parents[2] / "examples"
FOLDERS = sorted({path.parent for path in EXAMPLES.rglob("*.yaml")})


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(EXAMPLES)))
def test_an_example_loads_and_resolves(folder: Path) -> None:
    documents = order([loaded.document for loaded in load([folder])])
    finished: dict = {}
    for document in documents:
        run_file = resolve(document, storage=StorageSpec(uri="file:///store"), finished=finished)
        assert not isinstance(run_file, Waiting)
        finished[reference_to(document)] = Finished(uri=f"file:///store/{run_file.key}", digest=run_file.key)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: str(folder.relative_to(EXAMPLES)))
def test_an_example_explains_itself(folder: Path) -> None:
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("# ")
