"""What a recipe of an evaluation may say."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, group, opt, seed_of
from tale.config.sections import EngineConfig, ModelConfig, PriceConfig, SamplingConfig, TaskConfig
from tale.solvers.registry import Method


@dataclass
class EvaluateRecipe(Recipe):
    """Accuracy, or BLEU, and output tokens of several methods on one benchmark (§6, A.5)."""

    output: str = opt("run folder")
    model: ModelConfig = group(ModelConfig)
    task: TaskConfig = group(TaskConfig, was="benchmark")
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    methods: list[Method] = opt("what to compare; differences are to the first plain vanilla")
    seeds: list[int] = seed_of(
        "every question is answered once for each, in place of sampling.seed; several need a temperature", []
    )
    noninferiority_margin: float = opt(
        "points of accuracy that a method may lose and still count as not worse", 3.0, least=0.1, was="margin"
    )
    prices: PriceConfig = group(PriceConfig)
