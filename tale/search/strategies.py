"""Search strategies (§4, A.6): which budget to try next for a question.

A strategy is a coroutine. It gets the vanilla attempt, yields a budget β and a limit, is sent the attempt under β,
which is feasible iff right and of fewer tokens than the limit, and returns the attempt whose budget is β*, or None.

`greedy` corrects two errors of the paper's printed Algorithm 1, which tests the first feasible budget twice and returns
the budget that failed. `algorithm1_verbatim` keeps both, so that their cost can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence

from tale.data.records import Answer, Attempt

BudgetSearch = Generator[tuple[int, float], Attempt, Attempt | None]


def greedy(vanilla: Attempt) -> BudgetSearch:
    """Halve the budget while the answer is right and strictly cheaper than the previous one."""
    return _halve(vanilla, lambda before: before.best.tokens)


def shortest_correct(vanilla: Attempt) -> BudgetSearch:
    """Halve the budget while the answer is right, whatever its length: shows token elasticity (Fig 2)."""
    return _halve(vanilla, lambda _: math.inf)


def _halve(vanilla: Attempt, limit: Callable[[Attempt], float]) -> BudgetSearch:
    found, budget = None, vanilla.best.tokens
    while budget := budget // 2:
        attempt = yield budget, limit(found or vanilla)
        if not attempt.feasible:
            break
        found = attempt
    return found


def bisection(vanilla: Attempt) -> BudgetSearch:
    """Bisect between two bounds: a feasible budget becomes the upper one, an infeasible one the lower one."""
    found, low, high = None, 0, vanilla.best.tokens
    while (budget := (low + high) // 2) > low:
        attempt = yield budget, (found or vanilla).best.tokens
        if attempt.feasible:
            found, high = attempt, budget
        else:
            low = budget
    return found


def algorithm1_verbatim(vanilla: Attempt) -> BudgetSearch:
    """Algorithm 1 as printed, except for a budget of 0: it measures t₀ again, and β* is the budget that failed."""
    attempt, previous, right = None, vanilla.best.tokens, vanilla.best.tokens
    budget = right // 2
    while budget:
        before = yield previous, math.inf
        attempt = yield budget, before.best.tokens
        if not attempt.feasible:
            break
        budget = right // 2
        previous, right = right, budget
    return attempt


def grid(vanilla: Attempt, fractions: Sequence[float]) -> BudgetSearch:
    """Try all budgets, given as fractions of the vanilla answer's tokens: the oracle argmin of T(x, β)."""
    ladder = sorted({fraction_budget(share, vanilla) for share in fractions})
    attempts = []
    for budget in ladder:
        attempts.append((yield budget, math.inf))
    return min((a for a in attempts if a.feasible), key=lambda a: a.best.tokens, default=None)


def fraction_budget(fraction: float, vanilla: Attempt) -> int:
    """The budget that is this fraction of the vanilla answer's tokens, at least 1."""
    return max(1, round(fraction * vanilla.best.tokens))


STRATEGIES: dict[str, Callable[..., BudgetSearch]] = {
    strategy.__name__: strategy for strategy in (greedy, shortest_correct, bisection, algorithm1_verbatim, grid)
}

# Strategies whose answers can be cut off at the limit: they do not use the length of a longer one.
TRUNCATING = (greedy, bisection)


def max_calls(strategy: Callable[[Attempt], BudgetSearch], tokens: int) -> int:
    """The most budgets tried for a question whose vanilla answer has up to `tokens` tokens.

    That many are tried if every answer is right and cheaper than the previous one, starting from a power of 2.
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
