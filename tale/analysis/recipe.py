"""The recipe of an analysis."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, opt


@dataclass
class AnalyseRecipe(Recipe):
    """What searches tell: token elasticity, ideal budgets, monotonicity (§3, A.1, A.2); the searches' paths (Fig 2, 3).

    Takes records of strategy=grid for the curves, and of greedy or shortest_correct for the paths.
    """

    source = "none"

    output: str = opt("folder for tables and plots")
    records: list[str] = opt("records.jsonl files in the run folders of searches; each is one line in the plots")
