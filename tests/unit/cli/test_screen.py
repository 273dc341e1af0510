"""What a row says, as a plain line and in the live picture."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from kindling_api.v1alpha1.runfile import Progress
from kindling_api.v1alpha1.status import DatasetProgress, DatasetResult, DocumentCounts, ModelResult, TrainingProgress
from kindling_api.v1alpha1.stragglers import SlowProcess
from kindling_cli.rows import StageRow
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
HELD_UP = TRAINING.model_copy(update={"stragglers": [SlowProcess(rank=1, node=0, factor=2.1, step=300)]})
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
SLOW = "process 1 is 2.1 times as slow as others"
OF_DATASET = "1,672 documents read, 1,409 kept · 4.10 M tokens · vocabulary 4,096 · digest sha256:aaaaaaaaaaaa"
OF_MODEL = "700 steps · 5.73 M tokens · validation loss 2.400 · perplexity 11.0 · digest sha256:bbbbbbbbbbbb"
LINES = [
    (StageRow("a", "running"), "a: starting"),
    (StageRow("a", "running", READING), "a: reading 34 % · 1,420 documents · 81.2 K documents/s · 0:12 left"),
    (StageRow("a", "running", TRAINING), f"a: training 46 % · {FIGURES} · 1:12 left"),
    (
        StageRow("a", "running", HELD_UP),
        f"a: training 46 % · {FIGURES} · process 1 is 2.1 times as slow as others · 1:12 left",
    ),
    (StageRow("a", "done", BUILT, 21), f"a: finished in 0:21 · {OF_DATASET}"),
    (StageRow("a", "reused", TRAINED), f"a: already finished · {OF_MODEL}"),
    (StageRow("a", "stopping", TRAINING), f"a: stopping: saving what there is · {FIGURES}"),
    (StageRow("a", "failed"), "a: failed"),
]


@pytest.mark.parametrize(("row", "line"), LINES, ids=[row.state for row, _ in LINES])
def test_a_plain_line_says_where_a_row_is(row: StageRow, line: str) -> None:
    assert plain_line(row) == line


def test_plain_lines_come_at_changes_and_not_between() -> None:
    output = io.StringIO()
    with PlainScreen(Console(file=output, width=300)) as screen:
        row = StageRow("DatasetBuild/a")
        screen.show([row])
        row.state, row.progress = "running", READING
        for _ in range(5):
            screen.show([row])
        row.state, row.progress = "done", BUILT
        screen.show([row])
    lines = output.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d DatasetBuild/a: ", line) for line in lines)
    assert [line.split(" · ")[0].partition(": ")[2] for line in lines] == ["reading 34 %", "finished in 0:00"]


def test_a_stage_speaks_again_for_each_tenth_of_the_work_and_each_minute_that_changed_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, output = [0.0], io.StringIO()
    monkeypatch.setattr("kindling_cli.screen.time.monotonic", lambda: clock[0])
    screen = PlainScreen(Console(file=output, width=300))
    for seconds, percent in [(0, 1), (5, 2), (10, 3), (15, 12), (20, 13), (90, 14), (200, 14), (300, 15)]:
        clock[0] = float(seconds)
        screen.show([StageRow("a", "running", Progress(training=TrainingProgress(stage="training", percent=percent)))])
    assert re.findall(r"training (\d+) %", output.getvalue()) == ["1", "12", "14", "15"]


def test_an_evaluation_has_a_progress_of_its_own_and_no_time_left() -> None:
    evaluating = TrainingProgress(stage="evaluating", percent=100, step=150, steps=150, eta_seconds=0)
    row = StageRow(
        "a", "running", Progress(message="evaluating, 3 of 40, step 150 of 150", training=evaluating), 90, 60
    )
    assert plain_line(row) == "a: evaluating · 3 of 40, step 150 of 150"
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as captured:
        console.print(picture([row], 80))
    assert "evaluating …" in captured.get() and "0:30 so far" in captured.get() and "left" not in captured.get()


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
