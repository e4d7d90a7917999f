"""The recipe of a comparison of wordings."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, budget_line_option, opt, section, seed_option
from tale.config.sections import EngineConfig, ModelConfig, PriceConfig, SamplingConfig, TaskConfig


@dataclass
class WordingConfig:
    label: str = opt("name of the wording in tables and figures")
    budget_line: str | None = budget_line_option()


@dataclass
class WordingsRecipe(Recipe):
    """Ways to ask for a budget, over budgets, models and tasks: where it is obeyed, ignored or overdone (§3)."""

    output: str = opt("run folder")
    models: list[ModelConfig] = opt("models to compare")
    tasks: list[TaskConfig] = opt("tasks to compare on")
    wordings: list[WordingConfig] = opt("wordings of the budget line; one without a budget_line is the paper's")
    budgets: list[int] = opt("budgets in tokens, for every wording; two or more", [10, 30, 90, 270], ge=1)
    sampling: SamplingConfig = section(SamplingConfig)
    engine: EngineConfig = section(EngineConfig)
    max_token_ratio: float = opt(
        "largest token ratio of the best wording to vanilla CoT", 0.5, gt=0, le=1, renamed_from="share"
    )
    seed: int = seed_option("seed of the split into questions to choose the best wording on and held-out ones", 0)
    prices: PriceConfig = section(PriceConfig)
    dry_run: bool = opt("print how many calls and tokens each task takes, and load no weights", False)
