"""What a recipe of a search may say."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import Recipe, budget_line, group, opt
from tale.config.sections import DevicesConfig, EngineConfig, ModelConfig, PriceConfig, SamplingConfig, TaskConfig


@dataclass
class SearchRecipe(Recipe):
    """Find, for each question, the shortest right answer under halving token budgets (§4)."""

    output: str = opt("run folder")
    model: ModelConfig = group(ModelConfig)
    task: TaskConfig = group(TaskConfig, was="benchmark")
    sampling: SamplingConfig = group(SamplingConfig)
    engine: EngineConfig = group(EngineConfig)
    samples: int = opt("answers for each budget, and for the vanilla prompt; above 1 needs a temperature", 1, least=1)
    acceptance: str = opt(
        "when a budget counts as answered right: any (one sample is right), majority (more than half are), confident "
        "(the 95 % interval of the right share lies above a half)",
        "any",
        one_of=("any", "majority", "confident"),
        was="rule",
        values_were={"shortest": "any"},
    )
    strategy: str = opt(
        "which budget is asked next: greedy (§4), shortest_correct (halves while the answer is right, whatever it "
        "costs), bisection, algorithm1_verbatim (Algorithm 1 with its slips), grid",
        "greedy",
        one_of=("greedy", "shortest_correct", "bisection", "algorithm1_verbatim", "grid"),
        values_were={"minimum": "shortest_correct", "printed": "algorithm1_verbatim"},
    )
    budget_fractions: list[float] = opt(
        "budgets of strategy=grid, as shares of the vanilla answer's tokens (Table 8's)",
        [0.03125, 0.0625, 0.25, 1.0],
        above=0,
        was="grid",
    )
    full_answers: bool = opt(
        "let every answer under a budget end by itself; else greedy and bisection cut it off where it can no longer be "
        "cheaper than the best one before, with several samples under acceptance=any alone",
        False,
    )
    search_wrong: bool = opt(
        "search questions that vanilla CoT answers wrong, too (Algorithm 1 does, the official code does not); an "
        "answer under a budget has to be right and, but with strategy shortest_correct or grid, cheaper than the "
        "vanilla answer",
        False,
    )
    confirm_samples: int = opt(
        "times that each target's own prompt is asked again; a target is lucky where fewer than half of these answers "
        "are right",
        0,
        least=0,
        was="confirm",
    )
    confirm_temperature: float = opt("sampling temperature of the confirming answers", 0.7, least=0.01)
    budget_line: str | None = budget_line()
    max_in_flight: int = opt(
        "questions searched at the same time; one that is done makes room for the next", 256, least=1, was="window"
    )
    shard: str | None = opt(
        "2/8: the second of eight parts of the questions alone, into a folder of its own; join: put all parts together",
        None,
    )
    fabric: DevicesConfig = group(DevicesConfig)
    prices: PriceConfig = group(PriceConfig)
    dry_run: bool = opt("say how many calls and tokens it can take at most, and load no weights", False)
