"""The recipe of a report."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, opt


@dataclass
class ReportRecipe(Recipe):
    """Write one self-contained page about runs: tables, figures, examples and costs."""

    source = "none"

    output: str = opt("folder for report.html, its tables as CSV and its figures as PNG")
    runs: list[str] = opt(
        "folders of runs, finished or not: searches, trainings, evaluations, wordings, analyses, estimators, proxies"
    )
    examples: int = opt("questions to show with answers side by side, per trained method", 8, ge=0)
    price_per_hour: float = opt(
        "dollars per hour of the machine, for costs without a price per token, as training",
        0.0,
        ge=0,
        renamed_from="hourly",
    )
