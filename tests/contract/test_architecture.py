"""The page that shows the whole names files that exist, searches that find them, and every design note."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = "|".join([*(path.parent.parent.name for path in ROOT.glob("*/kindling_*/__init__.py")), "crds"])
FEW = 20
"""Lines through which a reader still looks."""


def questions() -> list[tuple[str, str, str]]:
    """What is looked for, the command, and the file in which the search should end."""
    return re.findall(r"^\| (.+?) \| `(git grep [^`]+)` \| `([^`]+)` \|$", PAGE, flags=re.MULTILINE)


def test_every_path_exists() -> None:
    named = set(re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", PAGE))
    assert len(named) > 80
    assert sorted(path for path in named if not (ROOT / path).exists()) == []


def test_every_package_has_its_line() -> None:
    packages = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("*/kindling_*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+/kindling_\w+)` \|", PAGE, flags=re.MULTILINE)) == packages


def test_twelve_questions_are_asked() -> None:
    assert len(questions()) == 12


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone")
@pytest.mark.parametrize(("what", "command", "file"), questions(), ids=[what for what, _, _ in questions()])
def test_one_search_for_the_fields_word_finds_it(what: str, command: str, file: str) -> None:
    found = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    assert len(found) <= FEW, f"{len(found)} lines are no answer"
    assert file in {line.partition(":")[0] for line in found}


def test_every_design_note_is_in_the_index() -> None:
    notes = {path.name for path in (ROOT / "docs" / "design").glob("*.md")}
    listed = re.findall(r"^\| \[\d+\]\(design/([\w.-]+)\) \|", PAGE, flags=re.MULTILINE)
    assert sorted(listed) == sorted(notes)
