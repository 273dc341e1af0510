"""The run as one page for people: its curves, what the model wrote on the way, its settings, and where it comes from.

It is written beside the manifest and is no part of it, for it holds times.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict

import jinja2
import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kindling_api.v1alpha1.best import Best
from kindling_api.v1alpha1.parallelism import Layout
from kindling_api.v1alpha1.products import REPORT
from kindling_api.v1alpha1.runfile import AlignmentRunFile
from kindling_api.v1alpha1.sizes import parameters
from kindling_trainer.data.inputs import learns_tokens
from kindling_trainer.telemetry.metrics import BEFORE, Row, perplexity
from kindling_trainer.telemetry.reporter import Course

SAMPLES_SHOWN = 6
"""Of each prompt, spread over the run; the first and the last are among them."""
INPUTS_SHOWN = 5
MOST_PLOTS = 9
COURSE = {"lr": "learning rate", "grad_norm": "norm of the gradient", "tokens_per_second": "tokens a second"}
OF_TIME = ("step_seconds", "seconds_in_steps", "own_seconds", "most_own_seconds", "time")
COMMON = {*COURSE, *OF_TIME, "step", "tokens", "loss", "mfu"}
"""Figures of a step that every method has."""
INK, MUTED, RULE, FILL, ACCENT = "#26221c", "#857c70", "#d9d2c5", "#7f9c94", "#b4532a"
_OF_THE_PAGE = {INK: "ink", MUTED: "muted", RULE: "rule", FILL: "curve", ACCENT: "accent", "#ffffff": "paper"}
"""The page's names for the colours: it has others in the dark."""


def render(course: Course) -> str:
    """The page, whole in one file."""
    loader = jinja2.PackageLoader("kindling_trainer.telemetry")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    manifest, run = course.manifest, course.run
    names = _method_figures(course.rows)
    return environment.get_template(REPORT).render(
        run=run,
        of_tokens=learns_tokens(run),
        method=run.spec.method.chosen[0] if isinstance(run, AlignmentRunFile) else None,
        compared=_before_and_after(course),
        method_course=_course_plot(course.rows, {name: name for name in names}) if names else None,
        manifest=manifest,
        shape=manifest.shape,
        parameters=parameters(manifest.shape, manifest.shape.padded_vocab(manifest.vocab_size)),
        figures=_figures(course),
        loss=_loss_plot(course.rows),
        course=_course_plot(course.rows, COURSE),
        prompts=_samples(course.rows),
        facts=_facts(course),
        lineage=_lineage(course),
    )


def _figures(course: Course) -> list[tuple[str, str]]:
    steps = [row for row in course.rows if "loss" in row]
    found = []
    if (loss := course.manifest.validation_loss) is not None:
        found.append((f"{loss:.4f}", "validation loss"))
        found += [(f"{perplexity(loss):,.2f}", "perplexity")] if learns_tokens(course.run) else []
    if course.manifest.loss is not None:
        found.append((f"{course.manifest.loss:.4f}", "loss of the last batch"))
    if steps:
        speeds = sorted(row["tokens_per_second"] for row in steps)
        found.append((f"{speeds[len(speeds) // 2]:,.0f}", "tokens a second (median)"))
        found.append((f"{sum(row['seconds_in_steps'] for row in steps):,.0f} s", "in steps that count"))
        if "mfu" in steps[-1]:
            found.append((f"{steps[-1]['mfu']:.1%}", "model FLOPs utilisation"))
    return [*found, (f"{course.seconds:,.0f} s", "from start to end")]


def _before_and_after(course: Course) -> list[tuple[str, str, str]]:
    """The figures of an alignment's last evaluation, beside those of its base."""
    found = course.manifest.evaluation or {}
    names = [name for name in found if not name.endswith(BEFORE)]
    shown = {name: f"{value:,.4f}" for name, value in found.items()}
    return [(name.replace("_", " "), shown.get(f"{name}{BEFORE}", ""), shown[name]) for name in names]


def _method_figures(rows: list[Row]) -> list[str]:
    """The names of the figures that only this method has, in the order in which they came up."""
    named = dict.fromkeys(name for row in rows if "loss" in row for name in row)
    return [name for name in named if name not in COMMON][:MOST_PLOTS]


def _facts(course: Course) -> list[tuple[str, str]]:
    shape, spec = course.manifest.shape, course.run.spec
    training, layout, plan = spec.training, spec.layout(), course.plan
    optimizer = training.optimizer.chosen[1]
    name = (
        "AdamW"
        if training.optimizer.muon is None
        else f"Muon, momentum {training.optimizer.muon.momentum:g}, and AdamW"
    )
    settings = f"rate {optimizer.learning_rate:g}, betas {optimizer.betas}, decay {optimizer.weight_decay:g}"
    layers = f"{shape.layers} layer{'s' * (shape.layers > 1)}"
    return [
        ("model", f"{layers}, {shape.heads} heads, width {shape.width}, context {shape.context}"),
        ("batch", f"{plan.tokens:,} tokens: {plan.sequences} sequences, {plan.micro_batch} at once in each process"),
        ("optimizer", f"{name}, {settings}"),
        ("gradient clipped to", f"{training.gradient_clip:g}"),
        ("precision", training.precision),
        ("processes", _processes(layout)),
        ("seed", str(training.seed)),
        *([("diverged", course.manifest.divergence.sentence)] if course.manifest.divergence else []),
        *_kept(course.manifest.best),
        *(("left out", each.sentence) for each in course.manifest.skipped or ()),
    ]


def _kept(best: Best | None) -> list[tuple[str, str]]:
    if best is None:
        return []
    kept = f"those after step {best.step:,}, of the lowest validation loss, {best.loss:.4f}"
    return [("weights", f"{kept}; the run ended after step {best.judged:,}")]


def _processes(layout: Layout) -> str:
    degrees = {"pipeline": layout.pipeline, "context": layout.context, "tensor": layout.tensor}
    parts = [f"data {layout.batch_ranks} ({layout.sharding})", *(f"{name} {n}" for name, n in degrees.items() if n > 1)]
    return f"{layout.processes}: {', '.join(parts)}"


def _lineage(course: Course) -> list[tuple[str, str]]:
    manifest = course.manifest
    known = [("model", manifest.digest), ("key of the work", manifest.key), ("tokenizer", manifest.tokenizer)]
    if manifest.inputs is None:
        known += [("dataset", manifest.dataset), ("dataset's folder", manifest.dataset_uri)]
    else:
        known += [("data", f"{entry.path} {entry.digest}") for entry in manifest.inputs[:INPUTS_SHOWN]]
        if len(manifest.inputs) > INPUTS_SHOWN:
            known.append(("data", f"… {len(manifest.inputs):,} files in all, listed in manifest.json"))
    base = manifest.base or manifest.base_uri
    return known if base is None else [*known, ("started from", base)]


def _samples(rows: list[Row]) -> list[tuple[str, list[tuple[int, str, str]]]]:
    """Each prompt with its continuations and their toxicity, the latest first."""
    by_prompt: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
    for row in rows:
        for sample in row.get("samples", ()):
            toxicity = f"{sample['toxicity']:.3f}" if "toxicity" in sample else ""
            by_prompt[sample["prompt"]][row["step"]] = (sample["text"], toxicity)
    shown = []
    for prompt, texts in by_prompt.items():
        steps = sorted(texts)
        apart = (len(steps) - 1) / max(1, min(SAMPLES_SHOWN, len(steps)) - 1)
        chosen = {steps[round(place * apart)] for place in range(min(SAMPLES_SHOWN, len(steps)))} | {steps[-1]}
        shown.append((prompt, [(step, *texts[step]) for step in sorted(chosen, reverse=True)]))
    return shown


def _loss_plot(rows: list[Row]) -> str:
    figure = Figure(figsize=(8.2, 3.4), layout="constrained")
    axes = figure.subplots()
    _line(axes, rows, "loss", FILL, label="training", width=1.0)
    _line(axes, rows, "validation_loss", ACCENT, label="validation", width=1.8, marker="o")
    axes.legend(frameon=False, labelcolor=INK, fontsize=9)
    axes.set_xlabel("step", color=MUTED)
    return _svg(figure)


def _course_plot(rows: list[Row], titles: dict[str, str]) -> str:
    """Figures of the steps beside one another, three in a line."""
    lines = -(-len(titles) // 3)
    figure = Figure(figsize=(8.2, 2.4 * lines), layout="constrained")
    for axes in (places := list(figure.subplots(lines, 3, squeeze=False).flat))[len(titles) :]:
        axes.set_visible(False)
    for axes, (name, title) in zip(places, titles.items(), strict=False):
        _line(axes, rows, name, FILL, width=1.2)
        axes.set_title(title, fontsize=9.5, color=INK, loc="left")
        if titles is COURSE:
            axes.set_ylim(bottom=0)
    return _svg(figure)


def _line(
    axes: Axes, rows: list[Row], name: str, colour: str, *, width: float, label: str = "", marker: str = ""
) -> None:
    points = [(row["step"], row[name]) for row in rows if name in row]
    axes.plot(
        *zip(*points, strict=True) if points else ((), ()), color=colour, lw=width, label=label, marker=marker, ms=3
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=MUTED, labelsize=8.5)
    axes.grid(axis="y", color=RULE, lw=0.5)


def _svg(figure: Figure) -> str:
    """The figure as inline SVG, with its letters as text; the same figure gives the same bytes."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "kindling"}):
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None})
    svg = content.getvalue().partition("<!DOCTYPE")[2].partition(">")[2]
    return re.sub("|".join(_OF_THE_PAGE), lambda color: f"var(--{_OF_THE_PAGE[color[0]]})", svg)
