"""What `make docs` makes a site of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def pages(entries: Any) -> Iterator[str]:
    """The pages that a part of the navigation names."""
    if isinstance(entries, str):
        yield entries
    for entry in entries if isinstance(entries, list) else entries.values() if isinstance(entries, dict) else ():
        yield from pages(entry)


def test_every_page_is_in_the_navigation() -> None:
    named = {page for page in pages(SITE["nav"]) if not page.startswith("project/")}
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_the_projects_own_pages_in_the_navigation_exist() -> None:
    assert [page for page in pages(SITE["nav"]) if page.startswith("project/")] != []
    for page in pages(SITE["nav"]):
        assert not page.startswith("project/") or (ROOT / page.removeprefix("project/")).is_file()


def test_the_api_of_every_package_is_read() -> None:
    (handlers,) = (plugin["mkdocstrings"] for plugin in SITE["plugins"] if isinstance(plugin, dict))
    folders = {path.parent.parent.name for path in ROOT.glob("*/kindling_*/__init__.py")}
    assert folders <= set(handlers["handlers"]["python"]["paths"])


def test_a_broken_link_fails_and_nothing_is_fetched() -> None:
    assert SITE["strict"] is True
    assert SITE["theme"]["font"] is False
    assert set(SITE["validation"].values()) == {"warn"}
