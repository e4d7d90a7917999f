"""The model's own estimate, in [0, 1], that reasoning is right and leads to the right answer, in a short call."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tale.config.fields import opt
from tale.data import strategy_prompts
from tale.grading import number, read
from tale.inference.scheduler import Solver
from tale.solvers.spending import Ask, Spending


def value_tokens_option() -> Any:
    """A field for the limit of a valuation."""
    return opt("most tokens of a call in which the model estimates whether reasoning is right", 6, ge=1)


def estimated_values(spending: Spending, texts: Mapping[str, int | None], limit: int) -> Solver[dict[str, Fraction]]:
    """The estimate of each text, asked for at temperature 0 at the same time; none if too little is left.

    `texts` have the number of the call that generated their end.
    """
    asks = [
        Ask(strategy_prompts.probability(spending.question, text), "value", limit, 0, parent, ("]]",), greedy=True)
        for text, parent in texts.items()
    ]
    made = yield from spending.several(asks)
    values = {text: read_probability(call.text) for text, call in zip(texts, made, strict=bool(made))}
    for call, value in zip(made, values.values(), strict=True):
        spending.score(call.number, float(value))
    return values


def read_probability(text: str) -> Fraction:
    """The estimate in a valuation; 0 if it is no number in [0, 1]."""
    found = number(read(text, "number").value or "")
    return found if found is not None and 0 <= found <= 1 else Fraction(0)
