"""Budget-aware self-consistency (arXiv:2406.06461): the majority of as many sampled chains as fit into B."""

from __future__ import annotations

from dataclasses import dataclass

from tale.config.fields import opt
from tale.data.prompts import Message
from tale.inference.scheduler import Solver
from tale.solvers.base import Call
from tale.solvers.spending import Spending
from tale.solvers.strategy import ESTIMATE, Strategy
from tale.solvers.voting import Votes


@dataclass
class SelfConsistency(Strategy):
    """Sample chains until the next one, of the mean length so far, would exceed B; answer with the majority.

    The first chain may be as long as B, and a later one as what is left. A chain that is cut off has no vote, unless
    its answer is marked. Of equal votes the answer that first had so many wins.
    """

    label_of = "Self-consistency"
    samples = True

    max_samples: int = opt("most chains of a question", 40, ge=1)

    def reason(self, spending: Spending, prompt: tuple[Message, ...]) -> Solver[None]:
        """Sample and count."""
        votes = Votes(spending.question)
        for sample in range(self.max_samples):
            if not fits_next(spending, sample):
                return
            chain = yield from spending.call(prompt, sample=sample)
            if chain is None:
                return
            yield from self.judge(chain, votes, spending)
            if self.enough(votes):
                return

    def judge(self, chain: Call, votes: Votes, spending: Spending) -> Solver[None]:
        """Count a chain's answer, and set the strategy's."""
        yield from ()
        votes.add(chain, spending.value(chain))
        if votes.leader:
            spending.answer(votes.leader.first)

    def enough(self, votes: Votes) -> bool:
        """Whether no further chain is needed."""
        return False


def fits_next(spending: Spending, made: int) -> bool:
    """Whether a chain, with its judgement, of the mean length of the `made` ones fits into what is left."""
    used = sum(call.completion.tokens for call in spending.calls if call.role != ESTIMATE)
    return spending.left > 0 and (made == 0 or used <= spending.left * made)
