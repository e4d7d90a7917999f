"""What a report takes."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, opt


@dataclass
class ReportRecipe(Recipe):
    """One self-contained page about runs: tables, figures, examples, and what it all cost."""

    source = "none"

    output: str = opt("folder for report.html, its tables as CSV and its figures as PNG")
    runs: list[str] = opt(
        "run folders of searches, trainings, evaluations, wordings, analyses and estimators, finished or not"
    )
    examples: int = opt("questions whose answers are shown side by side, for each trained method", 8, least=0)
    price_per_hour: float = opt(
        "dollars an hour of the machine: prices what has no price a token, as training", 0.0, least=0, was="hourly"
    )
