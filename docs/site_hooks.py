"""What `make docs` adds to the pages of docs/: pages that lie elsewhere, the design notes' titles, and the API.

Links in pages point to files of the repository, so that they can be followed there. Here those that leave docs/ are
turned to copies within the site, and the page or file they point to becomes part of it.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = "project"
"""The folder of the site for what lies outside docs/."""
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "RELEASE.md", "SECURITY.md")
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation, and make anchors as Git hosts do."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    sections = {name: pages for section in config.nav for name, pages in section.items()}
    sections["Start"] += [f"{OUTSIDE}/{path}" for path in _examples()]
    notes = sorted((ROOT / "docs" / "design").glob("*.md"))
    sections["Understand"].append({"Design notes": [f"design/{note.name}" for note in notes]})
    api = [
        {package: [{_dotted(room).removeprefix(f"{package}."): _api_page(room)} for room in rooms]}
        for package, rooms in _rooms().items()
    ]
    config.nav.append({"API": api})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/, all files that pages link to there, and one page of API a room."""
    pages = [*PAGES, *_examples()]
    texts = [*(f"docs/{file.src_uri}" for file in files.documentation_pages()), *pages]
    linked = {target for page in texts for target in _targets(page) if (ROOT / target).is_file()}
    for path in sorted({*pages, *linked}):
        if not path.startswith("docs/"):
            files.append(File.generated(config, f"{OUTSIDE}/{path}", content=(ROOT / path).read_bytes()))
    for rooms in _rooms().values():
        for room in rooms:
            files.append(File.generated(config, _api_page(room), content=_api_text(room)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page from places in the repository to places in the site."""
    here = page.file.src_uri
    source = here.removeprefix(f"{OUTSIDE}/") if here.startswith(f"{OUTSIDE}/") else f"docs/{here}"

    def turned(match: re.Match[str]) -> str:
        target = _target(source, match[1])
        place = target.removeprefix("docs/") if target.startswith("docs/") else f"{OUTSIDE}/{target}"
        return posixpath.relpath(place, posixpath.dirname(here) or ".")

    return _LINK.sub(turned, markdown)


def _targets(page: str) -> list[str]:
    return [_target(page, link) for link in _LINK.findall((ROOT / page).read_text(encoding="utf-8"))]


def _target(page: str, link: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _examples() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*/README.md"))


def _rooms() -> dict[str, list[Path]]:
    """The folders with modules of each package."""
    packages = sorted(path.parent for path in ROOT.glob("*/kindling_*/__init__.py"))
    return {
        package.name: sorted({path.parent for path in package.rglob("*.py") if path.name[0] != "_"} | {package})
        for package in packages
    }


def _api_page(room: Path) -> str:
    return f"api/{_dotted(room)}.md"


def _api_text(room: Path) -> str:
    modules = sorted(path for path in room.glob("*.py") if path.name[0] != "_")
    purpose = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
    return "\n\n".join([f"# {_dotted(room)}", purpose or "", *(f"::: {_dotted(each)}" for each in modules)]) + "\n"


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[1:])
