"""The command line as a whole: help, version, exit codes, errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kindling_api import __version__

Kindling = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = ["run", "plan", "render", "inspect", "generate", "chat", "serve", "export"]


def test_help_lists_the_commands_and_exit_codes(kindling: Kindling) -> None:
    said = kindling("--help").stdout
    assert all(f" {command} " in said for command in COMMANDS)
    assert "Exit codes: 0 done, 2 the input is at fault" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_shows_examples(command: str) -> None:
    from typer.testing import CliRunner

    from kindling_cli.main import app

    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"kindling {command} " in result.output.partition("Examples:")[2]


def test_every_command_that_shows_data_has_it_as_json() -> None:
    from typer.main import get_command

    from kindling_cli.main import app

    commands = get_command(app).commands | get_command(app).commands["toxicity"].commands  # type: ignore[attr-defined]
    without = {name for name, command in commands.items() if all("--json" not in each.opts for each in command.params)}
    writes_or_talks = {"export", "push", "chat", "serve", "toxicity"}
    assert without - writes_or_talks == {"render"}  # YAML, for kubectl


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from kindling_cli.main import app;"
        "CliRunner().invoke(app, ['run', '--help']);"
        "print([name for name in ('torch', 'ray', 'boto3', 'numpy', 'pyarrow') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_the_version_is_the_specifications(kindling: Kindling) -> None:
    result = kindling("--version")
    assert (result.returncode, result.stdout) == (0, f"kindling {__version__}\n")


@pytest.mark.parametrize("arguments", [["run"], ["bogus"], ["plan", "--bogus"], ["generate", "m"]], ids=" ".join)
def test_wrong_usage_is_exit_code_2(kindling: Kindling, arguments: list[str]) -> None:
    assert kindling(*arguments).returncode == 2


def test_a_wrong_document_is_exit_code_2_and_names_the_line(
    kindling: Kindling, write: Callable[..., Path], pretrain: Callable[..., str]
) -> None:
    file = write(pretrain("model", "text").replace("steps: 10", "stepz: 10"))
    result = kindling("run", file)
    assert result.returncode == 2
    assert f"error: {file}:8: spec.training.stepz: found an unknown field;" in result.stderr
    assert "did you mean `steps`?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_file_is_exit_code_2(kindling: Kindling, tmp_path: Path) -> None:
    result = kindling("run", tmp_path / "none.yaml")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        f"error: {tmp_path}/none.yaml: found nothing there; allowed: a file or a folder that exists. "
        "To fix it: check the path.\n"
    )


def test_a_terminal_that_lacks_a_character_shows_another(
    kindling: Kindling, write: Callable[..., Path], dataset: Callable[..., str]
) -> None:
    result = kindling("plan", write(dataset("text")), env={"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")
    assert "minHash 20 ? 6" in result.stdout


def test_a_package_that_is_not_installed_is_named_with_its_extra(kindling: Kindling, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError('no torch', name='torch')")
    result = kindling("generate", "model", "--prompt", "a", env={"PYTHONPATH": str(tmp_path)})
    assert (result.returncode, result.stderr) == (
        2,
        "error: torch is not installed, and this command needs it. To fix it: pip install 'kindling[trainer]'.\n",
    )
