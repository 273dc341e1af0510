"""`python -m kindling_operator.render` and `kindling render`: YAML out, one sentence for a mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kindling_operator.render.__main__ import main

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
QUICKSTART = EXAMPLES / "01-quickstart"


def render(*arguments: object, program: str = "kindling_operator.render") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_it_prints_the_objects_of_documents_in_the_order_in_which_they_need_one_another() -> None:
    printed = render(QUICKSTART)
    assert printed.returncode == 0, printed.stderr
    kinds = [(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(printed.stdout) if item]
    assert kinds == [
        ("NetworkPolicy", "quickstart-dsb-1"),
        ("ConfigMap", "quickstart-dsb-1"),
        ("Job", "quickstart-dsb-1"),
        ("Service", "quickstart-ptr-1"),
        ("NetworkPolicy", "quickstart-ptr-1"),
        ("ConfigMap", "quickstart-ptr-1"),
        ("Job", "quickstart-ptr-1"),
        ("Service", "quickstart-chat-alr-1"),
        ("NetworkPolicy", "quickstart-chat-alr-1"),
        ("ConfigMap", "quickstart-chat-alr-1"),
        ("Job", "quickstart-chat-alr-1"),
    ]
    assert "# What DatasetBuild/quickstart makes is not known yet; s3://" in printed.stdout


def test_the_command_line_prints_the_same() -> None:
    assert render("render", QUICKSTART, program="kindling_cli.main").stdout == render(QUICKSTART).stdout


def test_settings_are_those_of_an_installation(tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text(
        '{"images": {"trainer": "mine:1", "dataprep": "mine:2", "serve": "mine:3"}, "storage": {"uri": "s3://ours"}}'
    )
    printed = render(QUICKSTART, "--settings", settings).stdout
    assert ("image: mine:1" in printed, "image: mine:2" in printed, '"uri": "s3://ours"' in printed) == (True,) * 3


@pytest.mark.parametrize(
    ("document", "settings", "said"),
    [
        ("kind: Nothing\napiVersion: kindling.dev/v1alpha1", None, 'kind: found "Nothing"; allowed: one of'),
        (None, '{"images": {"trainer": "t"}}', "images.dataprep: found Field required; allowed: the settings that"),
        (None, "{", "settings.json: found Invalid JSON"),
        (
            None,
            '{"images": {"trainer": "t", "dataprep": "d", "serve": "s"}}',
            "spec.storage: found nothing; allowed: a place",
        ),
    ],
    ids=["wrong kind", "missing setting", "no JSON", "no storage"],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    document: str | None, settings: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path: Path = QUICKSTART
    if document:
        path = tmp_path / "document.yaml"
        path.write_text(document)
    arguments = [str(path)]
    if settings:
        (tmp_path / "settings.json").write_text(settings)
        arguments += ["--settings", str(tmp_path / "settings.json")]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert (printed.out, said in printed.err) == ("", True), printed.err


def test_the_command_line_says_of_a_mistake_what_the_program_says() -> None:
    refused = render("render", EXAMPLES / "0-quickstart", program="kindling_cli.main")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: ")
    assert "did you mean" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_reader_of_a_pipe_may_leave_early(tmp_path: Path) -> None:
    text = (QUICKSTART / "quickstart.yaml").read_text()
    many = tmp_path / "many.yaml"
    many.write_text("\n---\n".join(text.replace("quickstart", f"q{number}") for number in range(10)))
    command = f"{sys.executable} -m kindling_cli.main render {many} | head -1"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.stderr) == ("# DatasetBuild/q0\n", "")
