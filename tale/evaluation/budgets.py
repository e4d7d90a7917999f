"""The budgets of an evaluation's strategies."""

from __future__ import annotations

from dataclasses import replace

from tale.errors import UserError
from tale.evaluation.recipe import EvaluateRecipe
from tale.solvers.base import Method
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
