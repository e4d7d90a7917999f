"""The recipe of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, opt, section, seed_option
from tale.config.sections import EngineConfig, ModelConfig, PriceConfig, SamplingConfig, TaskConfig
from tale.solvers.registry import Method


@dataclass
class EvaluateRecipe(Recipe):
    """Accuracy, or BLEU, and output tokens of several methods on one benchmark (§6, A.5)."""

    output: str = opt("run folder")
    model: ModelConfig = section(ModelConfig)
    task: TaskConfig = section(TaskConfig, renamed_from="benchmark")
    sampling: SamplingConfig = section(SamplingConfig)
    engine: EngineConfig = section(EngineConfig)
    methods: list[Method] = opt("methods to compare; the baseline of differences is the first vanilla without adapter")
    budgets: list[int] = opt("token budgets B of strategies: each one that sets no B runs with every one", [], ge=1)
    budget_multipliers: list[float] = opt(
        "budgets of strategies as multiples of each question's estimate, beside `budgets`", [], gt=0
    )
    seeds: list[int] = seed_option(
        "seeds with which every question is answered, instead of sampling.seed; several need a temperature", []
    )
    noninferiority_margin: float = opt(
        "non-inferiority margin of accuracy, in points", 3.0, ge=0.1, renamed_from="margin"
    )
    prices: PriceConfig = section(PriceConfig)
