"""Best of n: as many sampled chains as fit into B, of which a scorer picks one."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import opt
from tale.data import strategy_prompts
from tale.data.question import Question
from tale.inference import Request
from tale.inference.scheduler import Solver
from tale.solvers.base import Call
from tale.solvers.self_consistency import SelfConsistency
from tale.solvers.spending import Spending
from tale.solvers.valuation import estimated_values, value_tokens_option
from tale.solvers.voting import Votes


@dataclass
class BestOfN(SelfConsistency):
    """Sample at most `max_samples` chains, within B with their scores, and answer with the best; of equals the first.

    A chain without an answer is not a candidate and has no score.
    """

    label_of = "Best of n"

    scorer: str = opt(
        "model: its own estimate in [0, 1] that a chain is right, in a short call after each (unreadable, or without "
        "tokens left for it: 0), or majority: the most frequent answer, as self_consistency",
        "model",
        choices=("model", "majority"),
    )
    value_tokens: int = value_tokens_option()

    @property
    def described(self) -> str:
        """The strategy, with those of its options that tell it from others."""
        return self.label_of if self.scorer == "model" else f"{self.label_of}, {self.scorer}"

    def judge(self, chain: Call, votes: Votes, spending: Spending) -> Solver[None]:
        """Score a chain, and answer with it if no earlier one is as good."""
        if self.scorer == "majority":
            yield from super().judge(chain, votes, spending)
        elif spending.value(chain) is not None:
            if not spending.answers:
                spending.answer(chain)
            values = yield from estimated_values(spending, {chain.text: chain.number}, self.value_tokens)
            score = float(values.get(chain.text, 0))
            spending.score(chain.number, score)
            best = spending.calls[spending.answers[-1][1].number]
            if score > (best.score or 0):
                spending.answer(chain)

    def longest_after(self, question: Question, chain: Request) -> list[Request]:
        """The valuation of a chain, whose prompt has the chain."""
        asked, most = strategy_prompts.probability(question, "…"), chain.sampling.max_tokens + self.value_tokens
        return [] if self.scorer == "majority" else [self.with_room(chain, asked, most)]
