from pathlib import Path

import pytest

from kindling_api import reference


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No page yet, in the place of docs/reference.md."""
    monkeypatch.setattr(reference, "FILE", tmp_path / "reference.md")
    return tmp_path / "reference.md"


def test_the_page_is_written_once_and_then_stays(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main([]) == 0
    assert file.read_text(encoding="utf-8") == reference.text()
    capsys.readouterr()
    assert (reference.main([]), capsys.readouterr().out) == (0, "")


def test_check_fails_where_the_page_differs_and_writes_nothing(file: Path) -> None:
    assert reference.main(["--check"]) == 1
    assert not file.exists()
    reference.main([])
    assert reference.main(["--check"]) == 0


@pytest.mark.parametrize(
    "row",
    [
        "| `sources` | list of object | required | What to read. |",
        "| `sources[].weight` | number > 0, ≤ 1000 | `1.0` |",
        "| `tokenizer.train.vocabSize` | count ≥ 257, ≤ 16777216 | `32000` |",
        '| `filters[].formatting.unicodeForm` | `NFC`, `NFKC` | `"NFC"` |',
        "| `suspend` | boolean | `false` | Stop the run, keep what is committed, and start again from it when set back"
        " to false. Can be changed. |",
        "| `training.steps` | count ≥ 1 |  |",
        '| `parallelism.data` | integer ≥ 1, ≤ 65536, or auto | `"auto"` |',
        "| `resources.nodeSelector` | map to string | `{}` |",
        '| `checkpoint.every` | integer or duration | `"10m"` |',
        "| `dataset` | object | required | What to train on. A dataset: the DatasetBuild that makes it, or where a"
        " finished one lies. (exactly one of name, uri must be given.) |",
    ],
)
def test_a_field_has_its_type_bounds_default_and_rules(row: str) -> None:
    assert row in reference.text()


def test_every_row_has_as_many_cells_as_its_table() -> None:
    cells = 0
    for line in reference.text().splitlines():
        if not line.startswith("|"):
            cells = 0
            continue
        count = line.replace("\\|", "").count("|")
        cells = cells or count
        assert count == cells, line
