"""What a row says, as a plain line and in the live picture."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import DatasetProgress, DatasetResult, DocumentCounts, ModelResult, TrainingProgress
from kindling_cli.rows import Row
from kindling_cli.screen import PlainScreen, picture, plain_line, screen_for

READING = Progress(
    dataset=DatasetProgress(stage="reading", percent=34.4, documents=1_420, documents_per_second=81_234, eta_seconds=12)
)
TRAINING = Progress(
    training=TrainingProgress(
        stage="training", percent=46, step=322, steps=700, loss=2.8123, perplexity=16.65, tokens_per_second=38_400,
        eta_seconds=72,
    )
)  # fmt: skip
BUILT = Progress(
    state="Succeeded",
    result=DatasetResult(
        digest=f"sha256:{'a' * 64}",
        uri="file:///s",
        documents=DocumentCounts(read=1_672, kept=1_409),
        tokens=4_102_331,
        vocab_size=4_096,
    ),
)
TRAINED = Progress(
    state="Succeeded",
    result=ModelResult(
        digest=f"sha256:{'b' * 64}", uri="file:///s", model="m", steps=700, tokens=5_734_400, validation_loss=2.4,
        perplexity=11.02,
    ),
)  # fmt: skip

FIGURES = "step 322 of 700 · loss 2.812 · perplexity 16.6 · 38.4 K tokens/s"
OF_DATASET = "1,672 documents read, 1,409 kept · 4.10 M tokens · vocabulary 4,096 · digest sha256:aaaaaaaaaaaa"
OF_MODEL = "700 steps · 5.73 M tokens · validation loss 2.400 · perplexity 11.0 · digest sha256:bbbbbbbbbbbb"
LINES = [
    (Row("a", "running"), "a: starting"),
    (Row("a", "running", READING), "a: reading 34 % · 1,420 documents · 81.2 K documents/s · 0:12 left"),
    (Row("a", "running", TRAINING), f"a: training 46 % · {FIGURES} · 1:12 left"),
    (Row("a", "done", BUILT, 21), f"a: finished in 0:21 · {OF_DATASET}"),
    (Row("a", "reused", TRAINED), f"a: already finished · {OF_MODEL}"),
    (Row("a", "stopping", TRAINING), f"a: stopping: saving what there is · {FIGURES}"),
    (Row("a", "failed"), "a: failed"),
]


@pytest.mark.parametrize(("row", "line"), LINES, ids=[row.state for row, _ in LINES])
def test_a_plain_line_says_where_a_row_is(row: Row, line: str) -> None:
    assert plain_line(row) == line


def test_plain_lines_come_at_changes_and_not_between() -> None:
    output = io.StringIO()
    with PlainScreen(Console(file=output, width=300)) as screen:
        row = Row("DatasetBuild/a")
        screen.show([row])
        row.state, row.progress = "running", READING
        for _ in range(5):
            screen.show([row])
        row.state, row.progress = "done", BUILT
        screen.show([row])
    assert [line.split(" · ")[0] for line in output.getvalue().splitlines()] == [
        "DatasetBuild/a: reading 34 %",
        "DatasetBuild/a: finished in 0:00",
    ]


@pytest.mark.parametrize("width", [80, 100])
def test_the_picture_fits_its_width(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(picture([row for row, _ in LINES], width))
    lines = captured.get().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    assert any("reading 34 %" in line and "0:12 left" in line for line in lines)
    assert any(line.startswith("✓") and "already finished" in line for line in lines)


def test_only_a_terminal_gets_the_live_picture() -> None:
    assert isinstance(screen_for(Console(file=io.StringIO())), PlainScreen)
    assert not isinstance(screen_for(Console(file=io.StringIO(), force_terminal=True)), PlainScreen)
