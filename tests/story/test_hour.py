"""A new user's first hour, step by step, on texts found on this machine: see hour.yaml."""

from __future__ import annotations

import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kindling_api.yaml_source import read_yaml
from kindling_cli.main import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

STEPS = read_yaml((Path(__file__).parent / "hour.yaml").read_text(encoding="utf-8"), "hour.yaml")[0].value
FOUND = Path("/usr/share/doc")
"""Where distributions keep the licences and notes of their packages."""
TEXTS, LONGEST, FEWEST_BYTES = 40, 8_000, 1_500
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Hour:
    """The user's folder, and what earlier steps have found."""

    folder: Path
    said: str = ""
    """By the last command."""
    failed: str = ""
    """The folder of what failed."""
    acts: dict[str, Callable[[Hour], None]] = field(default_factory=dict)


def texts() -> list[str]:
    """Texts of this machine, each another one; made up where it has too few."""
    files = sorted(FOUND.glob("*/copyright")) if FOUND.is_dir() else []
    found = [file.read_text(encoding="utf-8", errors="replace")[:LONGEST] for file in files[: 4 * TEXTS]]
    long = [text for text in dict.fromkeys(found) if len(text) >= FEWEST_BYTES][:TEXTS]
    words = (
        "box",
        "holds",
        "many",
        "small",
        "parts",
        "and",
        "each",
        "of",
        "them",
        "is",
        "some",
        "use",
        "to",
        "whoever",
    )
    made = (
        " ".join(words[(number * 7 + place * (number + 3)) % len(words)] for place in range(400))
        for number in range(TEXTS)
    )
    return [*long, *made][:TEXTS]


@pytest.fixture
def hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hour:
    """A folder with forty texts, a letter and its copy, a short one, and a file that is none."""
    folder = tmp_path / "laptop"
    (folder / "texts").mkdir(parents=True)
    for number, text in enumerate(texts()):
        (folder / f"texts/{number:02}.txt").write_text(text, encoding="utf-8")
    letter = "A letter that somebody has sent twice says the same each time, whatever one thinks of it. " * 9
    for name in ("letter", "the same letter"):
        (folder / f"texts/{name}.txt").write_text(letter)
    (folder / "texts/short.txt").write_text("A few words, and no more than that, for a rule to take out of the way.\n")
    (folder / "texts/notes.pdf").write_bytes(b"%PDF")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(folder)
    return Hour(folder, acts=ACTS)


def spoil(hour: Hour) -> None:
    file = hour.folder / "model.yaml"
    file.write_bytes(file.read_bytes().replace(b"name: no", b"name: caf\xe9"))


def find_failed(hour: Hour) -> None:
    found = re.search(r"(\S*kindling-store/datasets/[0-9a-f]{16})", hour.said)
    assert found is not None, hour.said
    hour.failed = found[1]


def write_dialogues(hour: Hour) -> None:
    said = [
        [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"{n}."}] for n in range(40)
    ]
    (hour.folder / "dialogues.jsonl").write_text("".join(json.dumps({"messages": each}) + "\n" for each in said))


def move(hour: Hour) -> None:
    moved = hour.folder.with_name("other laptop")
    hour.folder.rename(moved)
    hour.folder = moved


def lose_weights(hour: Hour) -> None:
    """Of the newest model of `first`."""
    product = json.loads((hour.folder / "kindling-store/names/PretrainRun/default/first.json").read_text())
    (hour.folder / "kindling-store/models" / product["uri"].rpartition("/")[2] / "model/model.safetensors").unlink()


ACTS = {
    "spoil model.yaml with a Latin-1 letter": spoil,
    "find the folder of what failed": find_failed,
    "write forty dialogues": write_dialogues,
    "move everything into another folder": move,
    "lose the weights of a model": lose_weights,
}


def test_an_hour_shows_what_it_should(hour: Hour, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(STEPS) >= 60
    for number, step in enumerate(STEPS, 1):
        for name, text in step.get("write", {}).items():
            (hour.folder / name).write_text(text, encoding="utf-8")
        if "do" in step:
            hour.acts[step["do"]](hour)
        monkeypatch.chdir(hour.folder)
        monkeypatch.setattr(sys, "stdin", io.StringIO(step.get("answers", "")))
        code, hour.said = type_in(step["type"].replace("FAILED", hour.failed))
        where = f"step {number}, kindling {step['type']}: exit {code}\n{hour.said}"
        assert code == step.get("exit", 0), where
        for pattern in step["sees"]:
            assert re.search(pattern, hour.said), f"{pattern!r} is not seen in {where}"
        for pattern in step.get("never", ()):
            assert not re.search(pattern, hour.said), f"{pattern!r} is seen in {where}"


def type_in(line: str) -> tuple[int, str]:
    """Run a command in this process, which has loaded what all of them need; its exit code, and what it printed."""
    printed, before = io.StringIO(), sys.argv
    sys.argv = ["kindling", *shlex.split(line)]
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            main()
        code: object = 0
    except SystemExit as end:
        code = end.code
    finally:
        sys.argv = before
    return int(code or 0) if not isinstance(code, str) else 1, COLOURS.sub("", printed.getvalue())
