from pathlib import Path

import pytest

from kindling_api import crds
from kindling_api.documents import KINDS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in the place of crds/."""
    monkeypatch.setattr(crds, "FOLDER", tmp_path / "crds")
    return tmp_path / "crds"


def test_files_are_written_once_and_then_stay(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crds.main([]) == 0
    assert len(list(folder.iterdir())) == len(KINDS)
    capsys.readouterr()
    assert (crds.main([]), capsys.readouterr().out) == (0, "")


def test_check_fails_where_a_file_differs_and_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crds.main(["--check"]) == 1
    assert not folder.exists()
    crds.main([])
    assert crds.main(["--check"]) == 0
    edited = folder / "kindling.dev_pretrainruns.yaml"
    edited.write_text("edited", encoding="utf-8")
    capsys.readouterr()
    assert crds.main(["--check"]) == 1
    assert capsys.readouterr().out.startswith("kindling.dev_pretrainruns.yaml: differs, ")
    assert edited.read_text(encoding="utf-8") == "edited"
