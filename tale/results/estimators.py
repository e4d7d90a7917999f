"""The section of estimators: their scores against ideal ranges and β*, with the paper's (A.2)."""

from __future__ import annotations

from tale.analysis.estimators.score import score_tables
from tale.results.blocks import Block, Section, Text
from tale.results.paper import paper
from tale.results.runs import EstimateRun

NOTE = (
    "In brackets 95 % intervals: Wilson for shares; for the difference to the constant's distance a bootstrap, paired "
    "by question, and nearer or farther where it lies on one side of 0. Oracle is β* itself. The paper's distance is "
    "over the budgets outside, which are other questions for each estimator; over all, those inside count 0. The "
    "paper's figures are of its own models and questions, by the zero-shot estimator."
)


def estimators_section(run: EstimateRun) -> Section:
    """The section of one training of estimators, and their scores."""
    blocks: list[Block] = [_about(run)] if run.trained else []
    if not run.trained:
        blocks.append(Text("No estimator: the run was not finished; run its command again.", warning=True))
    elif not run.recipe.grid_records:
        blocks.append(Text("Not scored: no grid search was given (grid_records=…).", warning=True))
    elif not run.scores:
        text = "No results: scores.json of this grid is missing, the run was not finished; run its command again."
        blocks.append(Text(text, warning=True))
    else:
        blocks += _scores(run)
    return Section(f"estimators-{run.slug}", f"Estimators: {run.name}", blocks)


def _about(run: EstimateRun) -> Text:
    count = run.identity.get("examples", {}).get("train", 0)
    names, reach = ", ".join(run.trained), f"{100 * run.recipe.coverage:g} %"
    return Text(
        f"Trained on the β* of {count:,} questions: {names}. The conformal budget is to reach β* for {reach} of "
        f"questions. Estimates are multiplied by α = {run.recipe.budget_multiplier:g}."
    )


def _scores(run: EstimateRun) -> list[Block]:
    theirs = paper()["estimator"]
    figures = {"in_range": theirs["in_range"] / 100, "distance_outside": theirs["distance_outside"]}
    beside = {"estimator": f"the paper ({theirs['table']})", **figures}
    return [*score_tables(run.slug, run.scores, beside), Text(NOTE)]
