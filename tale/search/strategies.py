"""Which budget is asked next (§4, A.6): each strategy searches one question.

A strategy is a coroutine. It gets the vanilla attempt, yields a budget β and a limit, is sent the attempt under β,
which is feasible iff right and of fewer tokens than the limit, and returns the attempt whose budget is β*, or None.

`greedy` corrects two slips of the paper's printed Algorithm 1, which tests the first feasible budget twice, and
returns the budget that failed. `algorithm1_verbatim` keeps both, so that their cost can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence

from tale.data.records import Answer, Attempt

Search = Generator[tuple[int, float], Attempt, Attempt | None]


def greedy(vanilla: Attempt) -> Search:
    """Halve the budget for as long as the answer is right and strictly cheaper than the one before."""
    return _halve(vanilla, lambda before: before.best.tokens)


def shortest_correct(vanilla: Attempt) -> Search:
    """Halve the budget for as long as the answer is right, whatever it costs: shows token elasticity (Fig 2)."""
    return _halve(vanilla, lambda _: math.inf)


def _halve(vanilla: Attempt, limit: Callable[[Attempt], float]) -> Search:
    found, budget = None, vanilla.best.tokens
    while budget := budget // 2:
        attempt = yield budget, limit(found or vanilla)
        if not attempt.feasible:
            break
        found = attempt
    return found


def bisection(vanilla: Attempt) -> Search:
    """Between two bounds: a feasible budget is the new upper one, an infeasible one the new lower one."""
    found, low, high = None, 0, vanilla.best.tokens
    while (budget := (low + high) // 2) > low:
        attempt = yield budget, (found or vanilla).best.tokens
        if attempt.feasible:
            found, high = attempt, budget
        else:
            low = budget
    return found


def algorithm1_verbatim(vanilla: Attempt) -> Search:
    """Algorithm 1 to the letter, but no budget of 0: it measures t₀ again, and β* is the budget that failed."""
    attempt, previous, right = None, vanilla.best.tokens, vanilla.best.tokens
    budget = right // 2
    while budget:
        reference = yield previous, math.inf
        attempt = yield budget, reference.best.tokens
        if not attempt.feasible:
            break
        budget = right // 2
        previous, right = right, budget
    return attempt


def grid(vanilla: Attempt, shares: Sequence[float]) -> Search:
    """Every budget of a ladder, given as shares of the vanilla answer's tokens: the oracle argmin of T(x, β)."""
    ladder = sorted({share_budget(share, vanilla) for share in shares})
    attempts = []
    for budget in ladder:
        attempts.append((yield budget, math.inf))
    return min((a for a in attempts if a.feasible), key=lambda a: a.best.tokens, default=None)


def share_budget(share: float, vanilla: Attempt) -> int:
    """A budget given as a share of the vanilla answer's tokens."""
    return max(1, round(share * vanilla.best.tokens))


STRATEGIES: dict[str, Callable[..., Search]] = {
    strategy.__name__: strategy for strategy in (greedy, shortest_correct, bisection, algorithm1_verbatim, grid)
}

# Of an answer at or above its limit these need to know no more than that it is.
CUT = (greedy, bisection)


def most_calls(strategy: Callable[[Attempt], Search], tokens: int) -> int:
    """The most budgets that can be asked of a question whose vanilla answer has up to `tokens` tokens.

    That many are asked where each answer is right and cheaper than the one before, from a power of 2 down.
    """
    cost = 1 << (tokens - 1).bit_length()
    steps, calls, attempt = strategy(_right(cost)), 0, None
    while True:
        try:
            steps.send(attempt)  # type: ignore[arg-type]
        except StopIteration:
            return calls
        calls, cost = calls + 1, cost - 1
        attempt = _right(cost)


def _right(tokens: int) -> Attempt:
    return Attempt(None, (Answer("", tokens, "stop", correct=True, value=None, via="brackets"),), feasible=True)
