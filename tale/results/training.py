"""A training's section: what it was trained on, and its curves."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from tale.results.blocks import Block, Column, Figure, Section, Table, Text, duration, whole
from tale.results.figures import figure, legend
from tale.results.runs import TrainRun

CURVES = {"loss": "loss", "margin": "margin of target over vanilla answer, nats"}
COLUMNS = (
    Column("examples", "examples", whole),
    Column("vanilla_wrong", "of these vanilla CoT wrong", whole),
    Column("steps", "steps", whole),
    Column("tokens", "tokens trained on", whole),
    Column("seconds", "wall time", duration),
    Column("first_loss", "loss at step 0", "{:.4g}".format),
    Column("last_loss", "loss at the last step", "{:.4g}".format),
    Column("first_val_loss", "held-out loss before", "{:.4g}".format),
    Column("last_val_loss", "held-out loss after", "{:.4g}".format),
)


def training_section(run: TrainRun) -> Section:
    """All about one training."""
    title = f"Training: {run.name}"
    blocks: list[Block] = [Text(f"{run.recipe.objective.value.upper()} of {run.model}.")]
    if not run.finished:
        blocks.append(
            Text("No adapter: the run was not finished; resume=auto goes on from its checkpoint.", warning=True)
        )
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
    values = [
        examples.get("train"),
        examples.get("vanilla_wrong"),
        curves.steps,
        curves.tokens,
        curves.seconds,
        *losses[0],
        *losses[1],
    ]
    used = [(column, value) for column, value in zip(COLUMNS, values, strict=True) if value is not None]
    recipe = run.recipe
    caption = f"{recipe.train.epochs} epochs, {recipe.train.batch_size} examples a step, LoRA rank {recipe.lora.rank}"
    columns = [Column("run", "run"), *(column for column, _ in used)]
    return Table(f"training-{run.slug}", caption, columns, [[run.name, *(value for _, value in used)]])


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
