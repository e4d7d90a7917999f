"""The recipe of a search."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, budget_line_option, opt, section
from tale.config.sections import DevicesConfig, EngineConfig, ModelConfig, PriceConfig, SamplingConfig, TaskConfig


@dataclass
class SearchRecipe(Recipe):
    """Find, for each question, the shortest right answer under halving token budgets (§4)."""

    output: str = opt("run folder")
    model: ModelConfig = section(ModelConfig)
    task: TaskConfig = section(TaskConfig, renamed_from="benchmark")
    sampling: SamplingConfig = section(SamplingConfig)
    engine: EngineConfig = section(EngineConfig)
    samples: int = opt(
        "answers sampled per budget, and for the vanilla prompt; more than 1 needs a sampling.temperature", 1, ge=1
    )
    acceptance: str = opt(
        "when a budget's samples count as right: any (one is right), majority (more than half are right), confident "
        "(the 95 % interval of the share of right ones is above one half)",
        "any",
        choices=("any", "majority", "confident"),
        renamed_from="rule",
        renamed_values={"shortest": "any"},
    )
    strategy: str = opt(
        "search strategy: greedy (§4), shortest_correct (halve the budget while the answer is right, whatever its "
        "length), bisection, algorithm1_verbatim (Algorithm 1 with its errors), grid",
        "greedy",
        choices=("greedy", "shortest_correct", "bisection", "algorithm1_verbatim", "grid"),
        renamed_values={"minimum": "shortest_correct", "printed": "algorithm1_verbatim"},
    )
    budget_fractions: list[float] = opt(
        "budgets of strategy=grid, as shares of the vanilla answer's tokens (Table 8's)",
        [0.03125, 0.0625, 0.25, 1.0],
        gt=0,
        renamed_from="grid",
    )
    full_answers: bool = opt(
        "do not cut answers off; by default greedy and bisection cut an answer off where it is no longer cheaper than "
        "the best one so far (with several samples only under acceptance=any)",
        False,
    )
    search_wrong: bool = opt(
        "also search questions that vanilla CoT answers wrong (Algorithm 1 does, the official code does not); an "
        "answer under a budget must be right and, except with strategy shortest_correct or grid, cheaper than the "
        "vanilla answer",
        False,
    )
    confirm_samples: int = opt(
        "confirming answers sampled for each target's prompt; a target is lucky if fewer than half of them are right",
        0,
        ge=0,
        renamed_from="confirm",
    )
    confirm_temperature: float = opt("sampling temperature of the confirming answers", 0.7, ge=0.01)
    budget_line: str | None = budget_line_option()
    max_in_flight: int = opt("questions searched at the same time", 256, ge=1, renamed_from="window")
    shard: str | None = opt(
        "part of the questions to search, into a subfolder: 2/8 is the second of eight; join: merge all parts", None
    )
    fabric: DevicesConfig = section(DevicesConfig)
    prices: PriceConfig = section(PriceConfig)
    dry_run: bool = opt("print the most calls and tokens that the search can take, and load no weights", False)
