"""The section of a training: its examples and its curves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from tale.config.training import Objective
from tale.output.figures import legend
from tale.output.formats import duration, rounded, whole
from tale.output.tables import Column, Table, table_of
from tale.results.blocks import Block, Figure, Section, Text
from tale.results.figures import figure
from tale.results.runs import TrainRun

CURVES = {
    "loss": "loss",
    "margin": "margin of target over vanilla answer, nats",
    "reward": "reward",
    "answer_tokens": "tokens of an answer",
}
COLUMNS = {
    "run": Column("run"),
    "examples": Column("examples", whole),
    "vanilla_wrong": Column("of these vanilla CoT wrong", whole),
    "steps": Column("steps", whole),
    "tokens": Column("tokens trained on", whole),
    "seconds": Column("wall time", duration),
    "first_loss": Column("loss at step 0", rounded),
    "last_loss": Column("loss at the last step", rounded),
    "first_val_loss": Column("held-out loss before", rounded),
    "last_val_loss": Column("held-out loss after", rounded),
}


def training_section(run: TrainRun) -> Section:
    """The section of one training."""
    title = f"Training: {run.name}"
    blocks: list[Block] = [Text(f"{run.recipe.objective.value.upper()} of {run.model}.")]
    if not run.finished:
        blocks.append(Text("No adapter: the run was not finished; resume=auto resumes it.", warning=True))
    if not run.curves.steps:
        blocks.append(Text("No step was logged: there are no TensorBoard event files.", warning=True))
        return Section(f"training-{run.slug}", title, blocks)
    blocks.append(_summary(run))
    blocks += [_figure(run, name, label) for name, label in CURVES.items() if f"train/{name}" in run.curves.points]
    return Section(f"training-{run.slug}", title, blocks)


def _summary(run: TrainRun) -> Table:
    curves = run.curves
    losses = [_ends(curves.points.get(f"{part}/loss", ())) for part in ("train", "val")]
    examples = run.identity.get("examples", {})
    counts = (examples.get("train"), examples.get("vanilla_wrong"))
    values = (run.name, *counts, curves.steps, curves.tokens, curves.seconds, *losses[0], *losses[1])
    recipe = run.recipe
    unit = "answers" if recipe.objective is Objective.grpo else "examples"
    caption = f"{recipe.train.epochs} epochs, {recipe.train.global_batch_size} {unit} a step, LoRA rank {recipe.lora.r}"
    return table_of(f"training-{run.slug}", caption, COLUMNS, [dict(zip(COLUMNS, values, strict=True))])


def _ends(points: Sequence[tuple[int, float]]) -> tuple[float | None, float | None]:
    return (points[0][1], points[-1][1]) if points else (None, None)


def _figure(run: TrainRun, name: str, label: str) -> Figure:
    parts = {"train": "training", "val": "held out"}
    curves = {shown: run.curves.points.get(f"{part}/{name}", []) for part, shown in parts.items()}

    def drawn(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for (shown, points), style in zip(curves.items(), ("-", "o--"), strict=True):
            if points:
                axes.plot(*zip(*points, strict=True), style, ms=4, lw=1.5, label=shown)
        axes.set(xlabel="step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        legend(canvas)

    ends = "; ".join(f"{shown} from {p[0][1]:.4g} to {p[-1][1]:.4g}" for shown, p in curves.items() if p)
    caption = f"The {name} by step, each before its update."
    return figure(f"{name}-{run.slug}", caption, f"{caption} {ends}.", drawn, (4.6, 3.2))
