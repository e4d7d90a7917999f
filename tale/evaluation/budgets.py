"""The budgets of an evaluation's strategies, and which methods are compared at equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.solvers.base import Method
from tale.solvers.single import Single
from tale.solvers.strategy import Strategy


def with_budgets(recipe: EvaluateRecipe) -> list[Method]:
    """The recipe's methods, each strategy without B once for every budget and multiplier.

    Raises:
        UserError: there are budgets, and no strategy takes them, or one is given twice.
    """
    for key, values in (("budgets", recipe.budgets), ("budget_multipliers", recipe.budget_multipliers)):
        if len(set(values)) < len(values):
            raise UserError(f"{key}={values}: one is given twice; give each once")
    if (recipe.budgets or recipe.budget_multipliers) and not any(map(_takes_budget, recipe.methods)):
        raise UserError("budgets: no strategy among the methods takes its B from here; leave it out")
    return [each for method in recipe.methods for each in at_budgets(method, recipe)]


def at_budgets(method: Method, recipe: EvaluateRecipe) -> list[Method]:
    """The method; a strategy without B once for every budget and multiplier of the recipe, if there are any."""
    if not (isinstance(method, Strategy) and _takes_budget(method)):
        return [method]
    each: list[Method] = [replace(method, total_budget=budget) for budget in recipe.budgets]
    each += [replace(method, budget_multiplier=multiplier) for multiplier in recipe.budget_multipliers]
    return each or [method]


def _takes_budget(method: Method) -> bool:
    return isinstance(method, Strategy) and not (method.total_budget or method.budget_multiplier)


def strategy_of(method: Method) -> str:
    """A strategy's name without its B; another method's name."""
    unlimited = {"total_budget": None, "budget_multiplier": None} if isinstance(method, Strategy) else {}
    return replace(method, **unlimited).name  # type: ignore[arg-type]


def baselines(method: Method, methods: Sequence[Method]) -> tuple[str | None, str | None]:
    """What a strategy is compared with at its B: the plain single chain, and the strategy itself without its adapter.

    The plain single chain is the first without adapter, forcing, "Wait" and stated budget. None where there is none, or
    it is the strategy itself.
    """
    if not isinstance(method, Strategy):
        return None, None
    same_b = [m for m in methods if isinstance(m, Strategy) and _budget(m) == _budget(method)]
    singles = [m for m in same_b if isinstance(m, Single) and not (m.force_answer or m.wait)]
    plain = [m for m in singles if not (m.adapter or m.prompt_budget)][:1]
    bare = [m for m in same_b if method.adapter and replace(m, label=None) == replace(method, adapter=None, label=None)]
    return tuple(of[0].name if of and of[0] is not method else None for of in (plain, bare))  # type: ignore[return-value]


def _budget(strategy: Strategy) -> tuple[object, ...]:
    """What B depends on."""
    return strategy.total_budget, strategy.budget_multiplier, strategy.estimator if strategy.budget_multiplier else None
