"""What a recipe of wordings may say."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, budget_line, group, opt, seed_of
from tale.config.sections import EngineConfig, ModelConfig, PriceConfig, SamplingConfig, TaskConfig


@dataclass
class WordingConfig:
    label: str = opt("name in tables and figures")
    budget_line: str | None = budget_line()


@dataclass
class WordingsRecipe(Recipe):
    """Ways to ask for a budget, over budgets, models and tasks: where it is obeyed, ignored or overdone (§3)."""

    output: str = opt("run folder")
    models: list[ModelConfig] = opt("each is loaded once, and asked every task")
    tasks: list[TaskConfig] = opt("each has a figure, and a best wording for each model")
    wordings: list[WordingConfig] = opt("ways to ask for a budget; one without a budget_line is the paper's")
    budgets: list[int] = opt("tokens that every wording asks for; two or more", [10, 30, 90, 270], least=1)
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    max_token_ratio: float = opt(
        "most tokens of a best wording, as a share of vanilla CoT's", 0.5, above=0, most=1, was="share"
    )
    seed: int = seed_of("of the split into questions that the best is chosen on and those that confirm it", 0)
    prices: PriceConfig = group(PriceConfig)
    dry_run: bool = opt("say how many calls and tokens each task takes, and load no weights", False)
