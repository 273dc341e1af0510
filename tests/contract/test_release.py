"""What a release carries: one version, a changelog, the licences of others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from kindling_api import __version__

ROOT = Path(__file__).parents[2]
CARD = Path("toxicity/kindling_toxicity/builtin/README.md")


def text(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_the_chart_has_the_distributions_version() -> None:
    chart = yaml.safe_load(text("charts/kindling/Chart.yaml"))
    assert (chart["version"], chart["appVersion"]) == (__version__, __version__)


def test_the_quickstart_builds_images_of_this_version() -> None:
    assert set(re.findall(r"kindling-\$image:(\S+)", text("docs/quickstart-cluster.md"))) == {__version__}


def test_the_changelog_begins_with_what_is_unreleased_and_then_this_version() -> None:
    headings = re.findall(r"^## (.+)$", text("CHANGELOG.md"), flags=re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(__version__)} \(\d{{4}}-\d\d-\d\d\)", headings[1])


@pytest.mark.parametrize("page", [Path("NOTICE"), CARD], ids=str)
def test_the_licence_of_the_labelled_tweets_goes_with_what_was_learnt_from_them(page: Path) -> None:
    words = " ".join(text(page).split())
    assert "https://github.com/t-davidson/hate-speech-and-offensive-language" in words
    assert "MIT License Copyright (c) 2017 Tom Davidson Permission is hereby granted, free of charge" in words
    assert "above copyright notice and this permission notice shall be included in all copies" in words
    assert "OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE." in words


def test_a_workflow_runs_what_ci_runs_and_a_commit_hook_what_lint_does() -> None:
    workflow = yaml.safe_load(text(".github/workflows/ci.yml"))
    assert {"run": ".ci/run"} in workflow["jobs"]["test"]["steps"]
    (hook,) = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert hook["entry"] == "make lint"


@pytest.mark.parametrize("form", sorted((ROOT / ".github").glob("**/*.yml")), ids=lambda path: path.name)
def test_a_form_is_yaml(form: Path) -> None:
    assert isinstance(yaml.safe_load(form.read_text(encoding="utf-8")), dict)
