"""The section of costs: the ledger, and after how many queries training has paid for itself."""

from __future__ import annotations

from collections.abc import Sequence

from tale.output.formats import dollars, duration, number, whole
from tale.output.tables import Column, Table, columns_of, table_of
from tale.results.blocks import Block, Section, Text
from tale.results.ledger import (
    BreakEven,
    Spent,
    break_even,
    spent_on_answers,
    spent_on_method,
    spent_on_search,
    spent_on_serving,
    spent_on_training,
)
from tale.results.runs import EvaluationRun, Run, SearchRun, ServeRun, TrainRun, WordingsRun

LEDGER = {"run": Column("run"), **columns_of(Spent)}
# Formats of total costs, and of the savings per query.
UNITS = {"tokens": (whole, number), "seconds": (duration, "{:,.3f} s".format), "dollars": (dollars, "${:,.7f}".format)}
NOTE = (
    "Search and evaluation: every call in the runs' journals, by the engine's wall time. Methods: each as if it were "
    "asked alone, so that calls which methods share count for each of them; a strategy's have no wall time here, as "
    "those of several strategies may be one call's beginnings. Training: prompt and answer tokens of all "
    "steps, wall time from the first event to the last. Prices: by the token where a run's recipe gives them, else by "
    "the hour (price_per_hour=…). What model.merge_adapter folds in is not counted."
)
BREAK_EVEN = (
    "After so many queries, what the search and the training took equals what the trained method has saved against "
    "vanilla CoT; the interval is that of the saving. Tokens are all that went through the model, read, generated and "
    "trained on alike, although a trained token takes about three times the work of a read one. Seconds are wall time "
    "on the machines that the runs had. The search counts in full for each method that was trained on it. Whether the "
    "trained method is as often right is another question."
)


def costs_section(runs: Sequence[Run], hourly: float) -> Section:
    """The cost ledger and the break-even of all runs."""
    rows = [{"run": run.name, **vars(spent)} for run in runs for spent in _spent(run, hourly)]
    if not rows:
        return Section("costs", "What it cost", [Text("Nothing was spent in these runs.", warning=True)])
    blocks: list[Block] = [table_of("ledger", "Cost ledger", LEDGER, rows), Text(NOTE)]
    return Section("costs", "What it cost", [*blocks, *_paid(runs, hourly)])


def _spent(run: Run, hourly: float) -> list[Spent]:
    if isinstance(run, SearchRun):
        spent = [spent_on_search(run, hourly)]
    elif isinstance(run, TrainRun):
        spent = [spent_on_training(run, hourly)]
    elif isinstance(run, EvaluationRun):
        methods = [spent for label in run.replies or {} for spent in spent_on_method(run, label, hourly)]
        spent = [spent_on_answers(run, hourly), *methods]
    elif isinstance(run, WordingsRun):
        spent = [spent_on_answers(run, hourly)]
    elif isinstance(run, ServeRun):
        spent = [spent_on_serving(run)]
    else:
        spent = []
    return [s for s in spent if s.calls or s.trained or s.seconds]


def _paid(runs: Sequence[Run], hourly: float) -> list[Block]:
    """The break-even of every trained method of every evaluation, one table per unit."""
    found: list[tuple[str, BreakEven]] = []
    missing: list[str] = []
    for run in runs:
        if isinstance(run, EvaluationRun) and run.replies:
            for label in (name for name in run.without_b if run.methods[name].adapter):
                units = break_even(run, label, runs, hourly)
                found += [(run.name, unit) for unit in units if unit.queries]
                if not all(unit.queries for unit in units):
                    missing.append(f"{label} of {run.name}: {_why(units, hourly)}")
    blocks: list[Block] = [_table(unit, rows) for unit in UNITS if (rows := [r for r in found if r[1].unit == unit])]
    blocks += [Text(BREAK_EVEN)] if blocks else []
    return [*blocks, *([Text("Not known: " + " ".join(missing))] if missing else [])]


def _table(unit: str, found: Sequence[tuple[str, BreakEven]]) -> Table:
    took, saved = UNITS[unit]
    columns = {
        "run": Column("run"),
        "method": Column("method"),
        "search": Column("search took", took),
        "training": Column("training took", took),
        "saved": Column("saved a query", saved),
        "queries": Column("paid for itself after so many queries", whole),
    }
    caption = f"When search and training have paid for themselves, in {unit}; in brackets 95 % intervals"
    return table_of(f"break-even-{unit}", caption, columns, [{"run": run, **vars(even)} for run, even in found])


def _why(units: Sequence[BreakEven], hourly: float) -> str:
    unknown = [unit for unit in units if not unit.queries]
    if any(unit.saved is None for unit in unknown if unit.unit == "tokens"):
        return "there is no vanilla CoT to save against."
    if any(unit.search is None for unit in unknown if unit.unit == "tokens"):
        return "its training, or the search that it was trained on, is not among the runs, or did not keep its tokens."
    names = ", ".join(unit.unit for unit in unknown)
    if names == "dollars" and not hourly:
        return "dollars, because training has no price; price_per_hour=… gives one."
    return f"{names}, because some of its runs did not keep them."
